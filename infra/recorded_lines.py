"""Files of recorded market data as lines: plain, .gz, .zst or .zip; and the exchange's object out of a frame."""

import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

import msgspec
import zstandard

_STEP = 1 << 18
LONGEST_LINE = 1 << 20  # bytes: a packed file can hold a line that no memory does
_DAMAGED = (
    EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, zipfile.BadZipFile, zstandard.ZstdError,
    RuntimeError,  # what zipfile says of encrypted files and unknown methods
)  # fmt: skip


class TornFile(Exception):
    """A file that ends too early, is damaged or can't be unpacked: what follows its last whole line can't be read."""


class _Combined(msgspec.Struct):
    data: msgspec.Raw
    stream: str


_combined = msgspec.json.Decoder(_Combined)


def payload(line: bytes) -> bytes:
    """The exchange's object in a recorded frame, combined or bare, byte for byte. Raises ValueError."""
    if line.startswith(b"{") and b'"stream"' in line and b'"data"' in line:
        try:
            return bytes(_combined.decode(line).data)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"no frame: {error}") from error
    return line.strip()


class RecordedFile:
    """Iterate over it for its lines, with their ends. Raises TornFile at the place where it is damaged, and OSError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.member = path.name  # the file in a .zip that is read now
        self._raw: IO[bytes] | None = None

    @property
    def position(self) -> int:
        """How many bytes of the file were read."""
        return self.size if self._raw is None or self._raw.closed else self._raw.tell()

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as self._raw:
            try:
                yield from self._lines(self._raw)
            except _DAMAGED as error:
                raise TornFile(f"the file is torn or damaged: {error}") from error
            except OSError as error:
                if error.errno is not None:
                    raise
                raise TornFile(f"the file is torn or damaged: {error}") from error  # bzip2's

    def _lines(self, raw: IO[bytes]) -> Iterator[bytes]:
        match self.path.suffix.lower():
            case ".gz":
                yield from _bounded(gzip.GzipFile(fileobj=raw))
            case ".zst":
                yield from _bounded(io.BufferedReader(_Zst(raw), _STEP))
            case ".zip":
                with zipfile.ZipFile(raw) as archive:
                    for member in archive.infolist():
                        if not member.is_dir():
                            with archive.open(member) as reader:
                                self.member = member.filename
                                yield from _bounded(reader)
            case _:
                yield from _bounded(raw)


def _bounded(reader: "IO[bytes] | gzip.GzipFile | io.BufferedReader") -> Iterator[bytes]:
    """Lines; of a longer one only its beginning, which is no frame, so that it is one bad line."""
    for line in iter(partial(reader.readline, LONGEST_LINE), b""):
        yield line
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            while (rest := reader.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                pass


class _Zst(io.RawIOBase):
    """Decompressed bytes of one or more frames; unlike zstandard's own reader it says when the last one is torn."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._left = raw, b""
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Some bytes; 0 at the end. Raises EOFError if that is within a frame."""
        while not self._left:
            if self._frame.eof:
                compressed = self._frame.unused_data or self._raw.read(_STEP)
                self._frame, self._begun = zstandard.ZstdDecompressor().decompressobj(), False
            else:
                compressed = self._raw.read(_STEP)
            if not compressed:
                if self._begun:
                    raise EOFError("it ends within a frame")
                return 0
            self._begun = True
            self._left = self._frame.decompress(compressed)
        taken = min(len(buffer), len(self._left))
        buffer[:taken], self._left = self._left[:taken], self._left[taken:]
        return taken
