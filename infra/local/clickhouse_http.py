"""The parts of ClickHouse's HTTP interface that are tables and byte transformations."""

import gzip
import zlib
from collections.abc import Callable
from typing import Any

import lz4.frame
import zstandard

WORTH_COMPRESSING = 1024

CONTENT_TYPES = {
    "Native": "application/octet-stream",
    "RowBinary": "application/octet-stream",
    "Parquet": "application/octet-stream",
    "Arrow": "application/octet-stream",
    "ArrowStream": "application/octet-stream",
    "JSON": "application/json; charset=UTF-8",
    "JSONCompact": "application/json; charset=UTF-8",
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8; header=absent",
    "CSVWithNames": "text/csv; charset=UTF-8; header=present",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TabSeparatedWithNames": "text/tab-separated-values; charset=UTF-8",
    "XML": "application/xml; charset=UTF-8",
}

# HTTPHandler's exceptionCodeToHTTPStatus; what is not here is 500.
_STATUS = {
    401: {194},
    403: {192, 193, 516, 497},
    400: {6, 8, 15, 20, 25, 26, 27, 36, 38, 41, 43, 44, 53, 62, 69, 70, 72, 117, 130, 168, 169}
    | {354, 376, 427, 441, 675, 676},
    404: {46, 47, 50, 56, 60, 63, 73, 81, 115, 511},
    413: {307},
    501: {48},
}  # fmt: skip


def status_of(code: int) -> int:
    """The HTTP status that goes with one of ClickHouse's exception codes."""
    return next((status for status, codes in _STATUS.items() if code in codes), 500)


# What decodes one frame; it knows whether that was whole (`eof`) and what comes after it (`unused_data`).
_DECODERS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(wbits=16 + zlib.MAX_WBITS),
    "deflate": zlib.decompressobj,
    "zstd": lambda: zstandard.ZstdDecompressor().decompressobj(),
    "lz4": lz4.frame.LZ4FrameDecompressor,
}
_ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lz4.frame.compress,
    "zstd": lambda data: zstandard.ZstdCompressor(level=1).compress(data),
    "gzip": lambda data: gzip.compress(data, compresslevel=1),
    "deflate": zlib.compress,
}


def decompress(body: bytes, encoding: str) -> bytes:
    """The body of a request with this Content-Encoding. Raises ValueError when it is not what it says.

    It may be several frames, one after the other: clickhouse-connect compresses each block of rows apart.
    """
    name = encoding.strip().lower()
    if name in ("", "identity"):
        return body
    if name not in _DECODERS:
        raise ValueError(f"Unknown content encoding {encoding!r}")
    decoded = []
    try:
        while body:
            decoder = _DECODERS[name]()
            decoded.append(decoder.decompress(body))
            if not decoder.eof:
                raise EOFError("it ends within a frame")
            body = decoder.unused_data
    except (OSError, EOFError, RuntimeError, zlib.error, zstandard.ZstdError) as error:
        raise ValueError(f"The body is not {name}: {error}") from error
    return b"".join(decoded)


def compress(body: bytes, accepted: str) -> tuple[bytes, str]:
    """(body, Content-Encoding) for an Accept-Encoding header; small bodies stay as they are, with ""."""
    wanted = {word.split(";")[0].strip().lower() for word in accepted.split(",")}
    for name, encode in _ENCODERS.items():
        if name in wanted and len(body) >= WORTH_COMPRESSING:
            return encode(body), name
    return body, ""
