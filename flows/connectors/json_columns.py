"""JSON records of Kafka to columns of ClickHouse: whole chunks at a time, a poison record never spoiling others.

A chunk is taken at once, and halved where something in it is wrong, down to the records that are. Each check is on a
column rather than on a value, for speed: a value is checked the same way, as a column of one.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from flows.connectors.clickhouse_native import Column
from flows.domain.errors import InvalidRecord

TIME_LIMIT_MS = 10_413_792_000_000  # DateTime64 ends with the year 2299
_DIGITS = {"Decimal64": 18, "Decimal128": 38, "Decimal256": 76}
_INTEGERS = {"Int64": (-(1 << 63), 1 << 63), "UInt64": (0, 1 << 64), "UInt32": (0, 1 << 32)}
_TYPE = re.compile(r"(\w+)(?:\((\d+).*\))?")
_DECIMAL = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")
_ANY_DIGIT = bytes.maketrans(b"123456789", b"000000000")
_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

Check = Callable[[list[Any]], list[Any]]


@dataclass
class Decoded:
    """The rows of a chunk by columns, and by index the records that are none, with the reason."""

    columns: list[list[Any]]
    rejected: list[tuple[int, str]] = field(default_factory=list)


class JsonColumns:
    """Decodes JSON objects whose fields are named as the columns; `message` says which JSON type each has."""

    def __init__(self, message: type[msgspec.Struct], columns: Sequence[Column]) -> None:
        self._decoder = msgspec.json.Decoder(message)
        self._columns = [(attrgetter(column.name), _check_of(column)) for column in columns]

    def decode(self, values: Sequence[bytes | None]) -> Decoded:
        """Every record of a chunk, at least one."""
        decoded = Decoded([[] for _ in self._columns])
        self._decode(values, 0, decoded)
        return decoded

    def _decode(self, values: Sequence[bytes | None], start: int, into: Decoded) -> None:
        try:
            found = self._whole(values)
        except InvalidRecord as error:
            if len(values) == 1:
                into.rejected.append((start, str(error)))
                return
            half = len(values) // 2
            self._decode(values[:half], start, into)
            self._decode(values[half:], start + half, into)
            return
        for column, more in zip(into.columns, found, strict=True):
            column.extend(more)

    def _whole(self, values: Sequence[bytes | None]) -> list[list[Any]]:
        messages = self._messages(values)
        return [check(list(map(get, messages))) for get, check in self._columns]

    def _messages(self, values: Sequence[bytes | None]) -> list[Any]:
        try:
            if len(values) == 1:
                return [self._decoder.decode(values[0])]  # type: ignore[arg-type]
            joined = b"\n".join(values)  # type: ignore[arg-type]
            # No record may reach into its neighbour: every line break stands between two objects, which no JSON
            # value allows but the top level.
            boundaries = len(values) - 1
            messages = self._decoder.decode_lines(joined)
            if joined.count(b"\n") == boundaries == joined.count(b"}\n{") and len(messages) == len(values):
                return messages
        except TypeError as error:
            raise InvalidRecord("record without a value") from error
        except _UNDECODABLE as error:
            raise InvalidRecord(f"bad JSON: {error}") from error
        raise InvalidRecord("not a record a line")


def _check_of(column: Column) -> Check:
    """Turns a JSON column into ClickHouse's values, or raises InvalidRecord with the reason for one of them."""
    found = _TYPE.fullmatch(column.type)
    assert found is not None
    kind, scale = found[1], int(found[2] or 0)
    if kind in _DIGITS:
        return _decimals(kind, scale)
    if kind == "DateTime64":
        return _in_range(column.name, 0, TIME_LIMIT_MS)
    return _in_range(column.name, *_INTEGERS[kind]) if kind in _INTEGERS else _not_empty(column.name)


def _not_empty(name: str) -> Check:
    def check(values: list[str]) -> list[str]:
        if "" in values:
            raise InvalidRecord(f"empty {name}")
        return values

    return check


def _in_range(name: str, first: int, end: int) -> Check:
    def check(values: list[int]) -> list[int]:
        for value in (min(values), max(values)):
            if not first <= value < end:
                raise InvalidRecord(f"{name} out of range: {value}")
        return values

    return check


def _decimals(kind: str, scale: int) -> Check:
    """Decimals in plain notation to units of 10⁻ˢ; all with exactly `scale` decimals is the usual and fast case."""
    whole = _DIGITS[kind] - scale
    ending, too_long = b"." + b"0" * scale + b"\n", b"0" * (whole + 1) + b"."
    beyond_64_bits = b"0" * (19 - scale) + b"."  # perhaps

    def usual(shape: bytes, count: int) -> bool:
        """Whether each of the lines is a minus or nothing, 1 to `whole` digits, a point and `scale` digits."""
        return (
            shape.count(ending) == shape.count(b".") == shape.count(b"\n") - 1 == count
            and shape.count(b"-") == shape.count(b"\n-")
            and not any(wrong in shape for wrong in (b"\n.", b"-.", too_long))
            and not shape.translate(None, b"0.-\n")
        )

    def one(text: str) -> int:
        found = _DECIMAL.fullmatch(text)
        if found is None:
            raise InvalidRecord(f"not a decimal: {text[:60]!r}")
        sign, digits, fraction = found[1], found[2], found[3] or ""
        if len(fraction) > scale:
            raise InvalidRecord(f"more than {scale} decimals: {text[:60]!r}")
        if len(digits) > whole:
            raise InvalidRecord(f"beyond {kind}({scale}): {text[:60]!r}")
        return int(sign + digits + fraction.ljust(scale, "0"))

    def check(values: list[str]) -> list[int]:
        joined = "\n".join(values)
        if joined.isascii() and usual(shape := f"\n{joined}\n".encode().translate(_ANY_DIGIT), len(values)):
            units = joined.replace(".", "")
            if beyond_64_bits in shape:
                return list(map(int, units.split("\n")))
            numbers: list[int] = np.fromstring(units, np.int64, sep="\n").tolist()
            return numbers
        return list(map(one, values))

    return check
