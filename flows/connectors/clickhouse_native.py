"""ClickHouse's Native format, for the column types of this project: a block of columns, straight from integers.

clickhouse-connect's own encoder takes Decimals and datetimes, which costs more than the rest of the way from Kafka.
https://clickhouse.com/docs/interfaces/formats/Native
"""

import sys
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

_SHORT = [chr(length) for length in range(128)]


@dataclass(frozen=True)
class Column:
    """A column's name and type.

    `String` takes text; `DateTime64` takes ms since the epoch and `DecimalN(s)` units of 10⁻ˢ, as int.
    """

    name: str
    type: str


def native_block(columns: Sequence[Column], data: Sequence[Sequence[Any]]) -> bytes:
    """The columns' values, at least one row, as one Native block. Raises OverflowError for an integer out of range."""
    parts = [_varint(len(columns)), _varint(len(data[0]))]
    for column, values in zip(columns, data, strict=True):
        parts += [_text(column.name), _text(column.type), _encoder(column.type)(values)]
    return b"".join(parts)


def _encoder(kind: str) -> Callable[[Sequence[Any]], bytes]:
    return _ENCODERS[kind.partition("(")[0]]


def _texts(values: Sequence[str]) -> bytes:
    try:
        joined = "".join(chain.from_iterable(zip([_SHORT[len(value)] for value in values], values, strict=True)))
    except IndexError:
        joined = "é"  # a long one
    # A length counts bytes, so only ASCII may be measured before it is encoded.
    return joined.encode() if joined.isascii() else b"".join(map(_text, values))


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _varint(len(encoded)) + encoded


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _integers(code: str) -> Callable[[Iterable[int]], bytes]:
    def encode(values: Iterable[int]) -> bytes:
        numbers = array(code, values)
        if sys.byteorder == "big":
            numbers.byteswap()
        return numbers.tobytes()

    return encode


def _wide(size: int) -> Callable[[Sequence[int]], bytes]:
    def encode(values: Sequence[int]) -> bytes:
        try:
            numbers = np.fromiter(values, "<i8", len(values))
        except OverflowError:  # some need more than 64 bits
            return b"".join([value.to_bytes(size, "little", signed=True) for value in values])
        words = np.empty((len(numbers), size // 8), "<i8")
        words[:, 0], words[:, 1:] = numbers, numbers[:, None] >> 63
        return words.tobytes()

    return encode


_ENCODERS: dict[str, Callable[[Any], bytes]] = {
    "String": _texts,
    "DateTime64": _integers("q"),
    "Decimal64": _integers("q"),
    "Decimal128": _wide(16),
    "Decimal256": _wide(32),
    "Int64": _integers("q"),
    "UInt64": _integers("Q"),
    "UInt32": _integers("I"),
}
