"""The native end of a second in `flows.runs`: its published JSON, its packed form, and the sums that stay open.

Writes what `SecondStat.to_json` and `flows.domain.packed` define, for whole numbers below 2⁶³ and quote volumes below
2¹²⁸, which is all that a scan takes.
"""

# Numba knows integers as int64 and uint64 only, mypy tells Python's from numpy's.
# mypy: disable-error-code="assignment,arg-type"

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
_ZERO, _POINT = ord("0"), ord(".")


@native
def _put(out: Bytes, at: int, piece: Bytes) -> int:
    for i in range(len(piece)):
        out[at + i] = piece[i]
    return at + len(piece)


@native
def _digits(out: Bytes, at: int, value: int, width: int) -> int:
    """A whole number with at least so many digits."""
    length, rest = 1, value // 10
    while rest:
        length += 1
        rest //= 10
    length = max(length, width)
    for i in range(length):
        out[at + length - 1 - i] = _ZERO + value % 10
        value //= 10
    return at + length


@native
def _decimal_8(out: Bytes, at: int, amount: int) -> int:
    at = _digits(out, at, amount // SCALE, 1)
    out[at] = _POINT
    return _digits(out, at + 1, amount % SCALE, 8)


@native
def _decimal_16(out: Bytes, at: int, low: int, high: int) -> int:
    """128 bits, in groups of eight digits: a long division by 10⁸ for each."""
    limbs = np.empty(4, np.uint64)
    mask, shift, base = np.uint64(0xFFFFFFFF), np.uint64(32), np.uint64(SCALE)
    limbs[0], limbs[1] = high >> shift, high & mask
    limbs[2], limbs[3] = low >> shift, low & mask
    groups = np.empty(5, np.int64)
    for group in range(5):
        rest = np.uint64(0)
        for limb in range(4):
            part = (rest << shift) | limbs[limb]
            limbs[limb] = part // base
            rest = part % base
        groups[group] = np.int64(rest)
    top = 4
    while top > 2 and groups[top] == 0:
        top -= 1
    at = _digits(out, at, groups[top], 1)
    for group in range(top - 1, 1, -1):
        at = _digits(out, at, groups[group], 8)
    out[at] = _POINT
    at = _digits(out, at + 1, groups[1], 8)
    return _digits(out, at, groups[0], 8)


@native
def render(names: Bytes, symbols: Ints, sums: Ints, quotes: Wide, out: Bytes, ends: Ints) -> int:
    """The JSON of each row of sums, one after the other; fills where each ends, and returns the last end."""
    at = 0
    for row in range(len(sums)):
        symbol = sums[row, SYMBOL]
        at = _put(out, _put(out, at, _SYMBOL), names[symbol, : symbols[symbol, NAME_LENGTH]])
        at = _digits(out, _put(out, at, _TIMESTAMP), sums[row, SECOND], 1)
        at = _decimal_8(out, _put(out, at, _OPEN), sums[row, OPEN])
        at = _decimal_8(out, _put(out, at, _HIGH), sums[row, HIGH])
        at = _decimal_8(out, _put(out, at, _LOW), sums[row, LOW])
        at = _decimal_8(out, _put(out, at, _CLOSE), sums[row, CLOSE])
        at = _decimal_8(out, _put(out, at, _VOLUME), sums[row, VOLUME])
        at = _decimal_16(out, _put(out, at, _QUOTE_VOLUME), quotes[row, 0], quotes[row, 1])
        at = _digits(out, _put(out, at, _COUNT), sums[row, COUNT], 1)
        at = _decimal_8(out, _put(out, at, _BUYS), sums[row, BUYS])
        at = _decimal_16(out, _put(out, at, _BUYS_QUOTE), quotes[row, 2], quotes[row, 3])
        at = _digits(out, _put(out, at, _FIRST), sums[row, FIRST_ID], 1)
        at = _digits(out, _put(out, at, _LAST), sums[row, LAST_ID], 1)
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
