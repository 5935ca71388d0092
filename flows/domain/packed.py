"""The SecondStats of one published second as bytes: a million of them as objects would make each snapshot slow.

A symbol after the other: the lengths of its name and of the rest (4 and 2 bytes), the name in UTF-8, then twelve
numbers, each as a byte that says how many bytes it has and these, little-endian. They are those of `AccumulatorRow`,
prices and ids as differences (high − open, open − low, close − low; last − first), which have few bytes.
`flows.run_close` writes the same.
"""

from collections.abc import Mapping
from struct import Struct

from flows.domain.second_stat import AccumulatorRow

HEAD = Struct("<IH")


def pack(rows: Mapping[str, AccumulatorRow]) -> bytes:
    """The rows of one second by symbol; none of their numbers is negative."""
    return b"".join([_symbol(symbol, row) for symbol, row in rows.items()])


def find(packed: bytes, symbol: str) -> AccumulatorRow | None:
    """The row of a symbol, None if the second has none."""
    name = symbol.encode()
    part = _parts(packed).get(name)
    return None if part is None else _row(part, HEAD.size + len(name))


def merged(packed: bytes, rows: Mapping[str, AccumulatorRow]) -> bytes:
    """A packed second with these rows instead of, or besides, those it has."""
    new = {symbol.encode(): _symbol(symbol, row) for symbol, row in rows.items()}
    return b"".join((_parts(packed) | new).values())


def _parts(packed: bytes) -> dict[bytes, bytes]:
    """The part of each symbol, by its name."""
    parts, at = {}, 0
    while at < len(packed):
        name_length, length = HEAD.unpack_from(packed, at)
        name = at + HEAD.size
        end = name + name_length + length
        parts[packed[name : name + name_length]] = packed[at:end]
        at = end
    return parts


def _symbol(symbol: str, row: AccumulatorRow) -> bytes:
    open_, high, low, close, volume, quote, count, buys, buys_quote, first, last, revision = row
    numbers = b"".join([
        _number(n)
        for n in (
            open_, high - open_, open_ - low, close - low, volume, quote, count, buys, buys_quote,
            first, last - first, revision,
        )
    ])  # fmt: skip
    name = symbol.encode()
    return HEAD.pack(len(name), len(numbers)) + name + numbers


def _number(number: int) -> bytes:
    length = (number.bit_length() + 7) // 8
    return length.to_bytes(1, "little") + number.to_bytes(length, "little")


def _row(part: bytes, at: int) -> AccumulatorRow:
    numbers = []
    for _ in range(12):
        end = at + 1 + part[at]
        numbers.append(int.from_bytes(part[at + 1 : end], "little"))
        at = end
    open_, above, below, close, volume, quote, count, buys, buys_quote, first, more, revision = numbers
    low = open_ - below
    return (
        open_, open_ + above, low, low + close, volume, quote, count, buys, buys_quote,
        first, first + more, revision,
    )  # fmt: skip
