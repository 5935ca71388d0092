"""ClickHouse's Native format, for the column types of this project: a block of columns, straight from integers.

clickhouse-connect's own encoder takes Decimals and datetimes, which costs more than the rest of the way from Kafka.
https://clickhouse.com/docs/interfaces/formats/Native
"""

import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_SHORT = [bytes([length]) for length in range(128)]


@dataclass(frozen=True)
class Column:
    """A column's name and type.

    `String` takes text; `DateTime64(3)` takes ms since the epoch and `Decimal64(8)` units of 1e-8, both as int.
    """

    name: str
    type: str


def native_block(columns: Sequence[Column], rows: Sequence[tuple[Any, ...]]) -> bytes:
    """The rows, at least one, as one Native block. Raises OverflowError for an integer beyond 64 bits."""
    parts = [_varint(len(columns)), _varint(len(rows))]
    for column, values in zip(columns, zip(*rows, strict=True), strict=True):
        parts += [_text(column.name), _text(column.type)]
        parts.append(b"".join(map(_text, values)) if column.type == "String" else _int64(values))
    return b"".join(parts)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _varint(len(encoded)) + encoded


def _varint(number: int) -> bytes:
    if number < 128:
        return _SHORT[number]
    out = bytearray()
    while number >= 128:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _int64(values: Iterable[int]) -> bytes:
    numbers = array("q", values)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()
