"""The native end of a second in `flows.runs`: its published JSON, its packed form, and the sums that stay open.

Writes what `SecondStat.to_json` and `flows.domain.packed` define, for whole numbers below 2⁶³ and quote volumes below
2¹²⁸, which is all that a scan takes.
"""

# Numba knows integers as int64 and uint64 only, mypy tells Python's from numpy's.
# mypy: disable-error-code="assignment,arg-type,return-value"

import numpy as np

from flows.domain.market import SCALE
from flows.run_scan import (
    BEFORE,
    BUYS,
    CLOSE,
    COUNT,
    FIRST_ID,
    HIGH,
    LAST_ID,
    LONGEST_NAME,
    LOW,
    NAME_LENGTH,
    NEWEST,
    OPEN,
    SECOND,
    SYMBOL,
    VOLUME,
    Bytes,
    Ints,
    Wide,
    native,
    text,
)

LONGEST_JSON = 600 + LONGEST_NAME
LONGEST_PACKED = 150 + LONGEST_NAME

_SYMBOL, _TIMESTAMP, _OPEN, _HIGH = text('{"symbol":"'), text('","timestamp":'), text(',"open":"'), text('","high":"')
_LOW, _CLOSE, _VOLUME = text('","low":"'), text('","close":"'), text('","volume":"')
_QUOTE_VOLUME, _COUNT, _BUYS = text('","quote_volume":"'), text('","trade_count":'), text(',"taker_buy_volume":"')
_BUYS_QUOTE, _FIRST, _LAST = (
    text('","taker_buy_quote_volume":"'),
    text('","first_trade_id":'),
    text(',"last_trade_id":'),
)
_REVISION = text(',"revision":0}')
_ZERO, _POINT = np.uint8(ord("0")), np.uint8(ord("."))
_PAIRS = text("".join(f"{pair:02}" for pair in range(100)))

# Numbers and places are unsigned where they are divided or index: signed ones cost native code twice as much.
_1, _2, _10, _100, _1E8 = (np.uint64(number) for number in (1, 2, 10, 100, SCALE))
_32, _LOW_32 = np.uint64(32), np.uint64(0xFFFFFFFF)


@native
def _put(out: Bytes, at: int, piece: Bytes) -> int:
    start = np.uint64(at)
    for i in range(len(piece)):
        out[start + np.uint64(i)] = piece[i]
    return at + len(piece)


@native
def _digits(out: Bytes, at: int, number: int) -> int:
    """A whole number below 2⁶³, two digits at a time from its end."""
    value = np.uint64(number)
    length, above = 1, _10
    while value >= above and length < 19:
        length += 1
        above *= _10
    end = np.uint64(at + length)
    while value >= _10:
        rest = value // _100
        pair = _2 * (value - rest * _100)
        out[end - _2], out[end - _1] = _PAIRS[pair], _PAIRS[pair + _1]
        end -= _2
        value = rest
    if end > np.uint64(at):
        out[end - _1] = _ZERO + np.uint8(value)
    return at + length


@native
def _eight_digits(out: Bytes, at: int, value: int) -> int:
    end = np.uint64(at + 8)
    for _ in range(4):
        rest = value // _100
        pair = _2 * (value - rest * _100)
        out[end - _2], out[end - _1] = _PAIRS[pair], _PAIRS[pair + _1]
        end -= _2
        value = rest
    return at + 8


@native
def _decimal_8(out: Bytes, at: int, amount: int) -> int:
    value = np.uint64(amount)
    whole = value // _1E8
    at = _digits(out, at, whole)
    out[np.uint64(at)] = _POINT
    return _eight_digits(out, at + 1, value - whole * _1E8)


@native
def _over_1e8(high: int, low: int) -> tuple[int, int, int]:
    """(High and low 64 bits of the quotient, rest) of 128 bits by 10⁸."""
    top = high // _1E8
    middle = ((high - top * _1E8) << _32) | (low >> _32)
    upper = middle // _1E8
    bottom = ((middle - upper * _1E8) << _32) | (low & _LOW_32)
    lower = bottom // _1E8
    return top, (upper << _32) | lower, bottom - lower * _1E8


@native
def _decimal_16(out: Bytes, at: int, low: int, high: int) -> int:
    high, low, last = _over_1e8(high, low)
    high, low, first = _over_1e8(high, low)
    _, above, below = _over_1e8(high, low)
    at = _eight_digits(out, _digits(out, at, above), below) if above else _digits(out, at, below)
    out[np.uint64(at)] = _POINT
    return _eight_digits(out, _eight_digits(out, at + 1, first), last)


@native
def render(names: Bytes, symbols: Ints, sums: Ints, quotes: Wide, out: Bytes, ends: Ints) -> int:
    """The JSON of each row of sums, one after the other; fills where each ends, and returns the last end."""
    at = 0
    for row in range(len(sums)):
        symbol = sums[row, SYMBOL]
        at = _put(out, _put(out, at, _SYMBOL), names[symbol, : symbols[symbol, NAME_LENGTH]])
        at = _digits(out, _put(out, at, _TIMESTAMP), sums[row, SECOND])
        at = _decimal_8(out, _put(out, at, _OPEN), sums[row, OPEN])
        at = _decimal_8(out, _put(out, at, _HIGH), sums[row, HIGH])
        at = _decimal_8(out, _put(out, at, _LOW), sums[row, LOW])
        at = _decimal_8(out, _put(out, at, _CLOSE), sums[row, CLOSE])
        at = _decimal_8(out, _put(out, at, _VOLUME), sums[row, VOLUME])
        at = _decimal_16(out, _put(out, at, _QUOTE_VOLUME), quotes[row, 0], quotes[row, 1])
        at = _digits(out, _put(out, at, _COUNT), sums[row, COUNT])
        at = _decimal_8(out, _put(out, at, _BUYS), sums[row, BUYS])
        at = _decimal_16(out, _put(out, at, _BUYS_QUOTE), quotes[row, 2], quotes[row, 3])
        at = _digits(out, _put(out, at, _FIRST), sums[row, FIRST_ID])
        at = _digits(out, _put(out, at, _LAST), sums[row, LAST_ID])
        at = _put(out, at, _REVISION)
        ends[row] = at
    return at


@native
def _number(out: Bytes, at: int, low: int, high: int) -> int:
    start = at
    byte, shift = np.uint64(0xFF), np.uint64(8)
    for word in range(2):
        rest = np.uint64(high if word else low)
        while rest or (word == 0 and high and at - start < 8):
            at += 1
            out[at] = rest & byte
            rest >>= shift
    out[start] = at - start
    return at + 1


@native
def pack(names: Bytes, symbols: Ints, sums: Ints, quotes: Wide, out: Bytes, ends: Ints) -> int:
    """The packed form of each row of sums, as `render` does."""
    at, none = 0, np.uint64(0)
    for row in range(len(sums)):
        head = at
        length = symbols[sums[row, SYMBOL], NAME_LENGTH]
        at = _put(out, at + 6, names[sums[row, SYMBOL], :length])
        start = at
        open_, low = sums[row, OPEN], sums[row, LOW]
        at = _number(out, at, np.uint64(open_), none)
        at = _number(out, at, np.uint64(sums[row, HIGH] - open_), none)
        at = _number(out, at, np.uint64(open_ - low), none)
        at = _number(out, at, np.uint64(sums[row, CLOSE] - low), none)
        at = _number(out, at, np.uint64(sums[row, VOLUME]), none)
        at = _number(out, at, quotes[row, 0], quotes[row, 1])
        at = _number(out, at, np.uint64(sums[row, COUNT]), none)
        at = _number(out, at, np.uint64(sums[row, BUYS]), none)
        at = _number(out, at, quotes[row, 2], quotes[row, 3])
        at = _number(out, at, np.uint64(sums[row, FIRST_ID]), none)
        at = _number(out, at, np.uint64(sums[row, LAST_ID] - sums[row, FIRST_ID]), none)
        at = _number(out, at, none, none)  # revision 0
        out[head], out[head + 1], out[head + 2], out[head + 3] = length, 0, 0, 0
        out[head + 4], out[head + 5] = at - start, 0
        ends[row] = at
    return at


@native
def drop(below: int, symbols: Ints, sums: Ints, quotes: Wide, n_sums: int) -> int:
    """Close up the sums after those of seconds before `below` are gone; how many are left."""
    for row in range(n_sums):
        symbols[sums[row, SYMBOL], NEWEST] = -1
    kept = 0
    for row in range(n_sums):
        if sums[row, SECOND] >= below:
            symbol = sums[row, SYMBOL]
            sums[kept, :] = sums[row, :]
            quotes[kept, :] = quotes[row, :]
            sums[kept, BEFORE] = symbols[symbol, NEWEST]
            symbols[symbol, NEWEST] = kept
            kept += 1
    return kept
