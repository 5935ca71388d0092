"""The native half of `flows.runs`: reads trades out of their JSON and sums them, until a record is not plain.

Compiled by Numba at its first call and kept beside the source (or under NUMBA_CACHE_DIR), so later starts load it,
unless the source or a number that it has from another module is another one.
"""

# Numba knows integers as int64 and uint64 only, mypy tells Python's from numpy's; and one loop is one pass.
# mypy: disable-error-code="assignment"
# ruff: noqa: PLR0911, PLR0912, PLR0915

from collections.abc import Callable
from hashlib import sha256
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numba.core.caching import FunctionCache
from numpy.typing import NDArray

from flows.domain.market import NO_TIME, SECOND_MS
from flows.domain.partition import MAX_AHEAD_MS, MAX_TRADE_AFTER_EVENT_MS

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Wide = NDArray[np.uint64]
F = TypeVar("F", bound=Callable[..., Any])

NO_RECEIVED = np.iinfo(np.int64).max  # a record that does not say when it was received
SLOTS = 4096  # symbols, and symbols by second, that are held; a power of two
TABLE = 4 * SLOTS
LONGEST_NAME = 40  # bytes of a symbol
JUMPS = 1024
# What `state` holds: how many symbols, sums and jumps are filled, W, and trades and heartbeats not yet noted.
N_SYMBOLS, N_SUMS, N_JUMPS, WATERMARK, TRADES, HEARTBEATS, STATE = range(7)
# The columns of `symbols`: bytes of the name, the id after the last when it was looked up, and now, the newest sum.
NAME_LENGTH, SINCE, AFTER, NEWEST = range(4)
NO_IDS, BY_ROWS = -1, -2  # in SINCE and AFTER: a symbol without ids so far, one whose name or ids a scan can't hold
# The columns of `sums`; the last is the symbol's sum before. Those of `quotes` are the quote volume's low and high 64
# bits, and the taker buys' the same.
SYMBOL, SECOND, OPEN, HIGH, LOW, CLOSE, VOLUME, COUNT, BUYS, FIRST_ID, LAST_ID, BEFORE = range(12)
# Why a scan ends: at the end of the chunk, at a record that is not plain, at a symbol to be looked up, or for room.
END, ODD, NEW, FULL = range(4)
_MAX_DIGITS = 18  # of a scaled amount or an id: fits 63 bits
_MAX_TIME = 1 << 53
_MAX_SUM = 1 << 62


class Kept(FunctionCache):
    """Numba's, which sees changes of the function's own file only: other numbers it compiles in belong to the key."""

    def _index_key(self, sig: Any, codegen: Any) -> tuple[Any, ...]:
        kinds = int, np.generic, np.ndarray
        numbers = {name: value for name, value in self._py_func.__globals__.items() if isinstance(value, kinds)}
        digest = sha256()
        for name, value in sorted(numbers.items()):
            digest.update(f"{name} {type(value)} {np.asarray(value).tolist()};".encode())
        return (*super()._index_key(sig, codegen), digest.hexdigest())


def native(function: F) -> F:
    compiled: Any
    try:
        compiled = njit(cache=True, nogil=True)(function)
        compiled._cache = Kept(function)
    except RuntimeError:  # there is nowhere to keep it: each process compiles for itself
        compiled = njit(nogil=True)(function)
    found: F = compiled
    return found


def text(text: str) -> Bytes:
    return np.frombuffer(text.encode(), np.uint8)


_HEARTBEAT = text('{"e":"heartbeat","E":')
_HEAD, _EVENT_TIME, _SYMBOL = text('{"e":"aggTrade",'), text('"E":'), text('"s":"')
_AGG_ID, _PRICE, _QUANTITY = text('","a":'), text(',"p":"'), text('","q":"')
_FIRST, _LAST, _TRADE_TIME, _MAKER = text('","f":'), text(',"l":'), text(',"T":'), text(',"m":')
_IGNORE, _TRUE, _FALSE, _BRACE = text(',"M":'), text("true"), text("false"), text("}")

_QUOTE, _BACKSLASH, _POINT, _ZERO, _SPACE, _COMMA, _E = (ord(c) for c in '"\\.0 ,E')


@native
def _skip(data: Bytes, at: int, end: int, text: Bytes) -> int:
    """The place after `text`, or -1 if it does not stand here."""
    if at < 0 or at + len(text) > end:
        return -1
    for i in range(len(text)):
        if data[at + i] != text[i]:
            return -1
    return at + len(text)


@native
def _integer(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """(The JSON integer that stands here, the place after it); the place is -1 if it is none, or negative or long."""
    value, start = 0, at
    if at < 0:
        return 0, -1
    while at < end:
        digit = np.int64(data[at]) - _ZERO
        if digit < 0 or digit > 9:
            break
        value = value * 10 + digit
        at += 1
        if at - start > _MAX_DIGITS:
            return 0, -1
    if at == start or (data[start] == _ZERO and at > start + 1):
        return 0, -1
    return value, at


@native
def _amount(data: Bytes, at: int, end: int) -> tuple[int, int]:
    """The same for a decimal in plain notation, in 1e-8 units."""
    value, digits, decimals = 0, 0, -1
    if at < 0:
        return 0, -1
    while at < end:
        byte = np.int64(data[at])
        digit = byte - _ZERO
        if 0 <= digit <= 9:
            value = value * 10 + digit
            digits += 1
            if decimals >= 0:
                decimals += 1
            if digits > _MAX_DIGITS or decimals > 8:
                return 0, -1
        elif byte == _POINT and decimals < 0 and digits > 0:
            decimals = 0
        else:
            break
        at += 1
    if digits == 0 or decimals == 0:
        return 0, -1
    for _ in range(8 - max(decimals, 0)):
        value *= 10
        digits += 1
    if digits > _MAX_DIGITS:
        return 0, -1
    return value, at


@native
def _boolean(data: Bytes, at: int, end: int) -> tuple[bool, int]:
    after = _skip(data, at, end, _TRUE)
    if after >= 0:
        return True, after
    return False, _skip(data, at, end, _FALSE)


@native
def scan(
    data: Bytes,
    starts: Ints,
    ends: Ints,
    received_ms: Ints,
    begin: int,
    close_after_ms: int,
    horizon_ms: int,
    state: Ints,
    table: NDArray[np.int32],
    names: Bytes,
    symbols: Ints,
    sums: Ints,
    quotes: Wide,
    jumps: Ints,
) -> tuple[int, int]:
    """Add plain records from `begin` on to the sums; (the record it ends before, why).

    A row of `jumps` is (symbol, id expected, greater id that came). A new symbol gets its row, then the scan ends: its
    SINCE and AFTER are to be filled in, and the same record scanned again.
    """
    watermark = state[WATERMARK]
    low32 = np.uint64(0xFFFFFFFF)
    bits32 = np.uint64(32)
    for record in range(begin, len(starts)):
        end = ends[record]
        event_time = NO_TIME
        at = _skip(data, starts[record], end, _HEARTBEAT)
        if at >= 0:
            event_time, at = _integer(data, at, end)
            received = received_ms[record]
            if event_time <= 0 or event_time >= _MAX_TIME or _skip(data, at, end, _BRACE) != end:
                return record, ODD
            if received != NO_RECEIVED and event_time > received + MAX_AHEAD_MS:
                return record, ODD
            state[HEARTBEATS] += 1
            state[WATERMARK] = watermark = max(watermark, event_time)
            continue
        at = _skip(data, starts[record], end, _HEAD)
        if at >= 0 and at + 1 < end and data[at + 1] == _E:
            event_time, at = _integer(data, _skip(data, at, end, _EVENT_TIME), end)
            if at < 0 or at >= end or event_time <= 0 or event_time >= _MAX_TIME or data[at] != _COMMA:
                return record, ODD
            at += 1
            received = received_ms[record]
            if received != NO_RECEIVED and event_time > received + MAX_AHEAD_MS:
                return record, ODD
        name = _skip(data, at, end, _SYMBOL)
        if name < 0:
            return record, ODD
        at = name
        hashed = np.uint64(14695981039346656037)
        while at < end and data[at] != _QUOTE and data[at] != _BACKSLASH and data[at] >= _SPACE:
            hashed = (hashed ^ np.uint64(data[at])) * np.uint64(1099511628211)
            at += 1
        name_end = at
        agg_id, at = _integer(data, _skip(data, at, end, _AGG_ID), end)
        price, at = _amount(data, _skip(data, at, end, _PRICE), end)
        quantity, at = _amount(data, _skip(data, at, end, _QUANTITY), end)
        first, at = _integer(data, _skip(data, at, end, _FIRST), end)
        last, at = _integer(data, _skip(data, at, end, _LAST), end)
        trade_time, at = _integer(data, _skip(data, at, end, _TRADE_TIME), end)
        is_buyer_maker, at = _boolean(data, _skip(data, at, end, _MAKER), end)
        _, at = _boolean(data, _skip(data, at, end, _IGNORE), end)
        if _skip(data, at, end, _BRACE) != end or name_end == name:
            return record, ODD
        if price == 0 or quantity == 0 or first > last or trade_time == 0 or trade_time >= _MAX_TIME:
            return record, ODD
        second = trade_time - trade_time % SECOND_MS
        if second + close_after_ms <= watermark or second + horizon_ms <= watermark:
            return record, ODD
        if event_time != NO_TIME and trade_time - event_time > MAX_TRADE_AFTER_EVENT_MS:
            return record, ODD

        place = np.int64((hashed ^ (hashed >> bits32)) & np.uint64(TABLE - 1))
        symbol = np.int64(table[place])
        length = name_end - name
        while symbol >= 0:
            same = symbols[symbol, NAME_LENGTH] == length
            if same:
                for i in range(length):
                    same = same and names[symbol, i] == data[name + i]
            if same:
                break
            place = (place + 1) & (TABLE - 1)
            symbol = np.int64(table[place])
        if symbol < 0:
            if length > LONGEST_NAME:
                return record, ODD
            symbol = state[N_SYMBOLS]
            if symbol == SLOTS:
                return record, FULL
            state[N_SYMBOLS] += 1
            table[place] = symbol
            names[symbol, :length] = data[name:name_end]
            symbols[symbol, NAME_LENGTH] = length
            symbols[symbol, NEWEST] = -1
            return record, NEW
        after = symbols[symbol, AFTER]
        if after == BY_ROWS or (after != NO_IDS and agg_id < after):
            return record, ODD
        row = symbols[symbol, NEWEST]
        while row >= 0 and sums[row, SECOND] != second:
            row = sums[row, BEFORE]
        if row >= 0 and (sums[row, VOLUME] + quantity >= _MAX_SUM or sums[row, COUNT] + (last - first) >= _MAX_SUM):
            return record, ODD
        if (row < 0 and state[N_SUMS] == SLOTS) or (agg_id != after and state[N_JUMPS] == JUMPS):
            return record, FULL
        if row < 0:
            row = state[N_SUMS]
            state[N_SUMS] += 1
            sums[row, SYMBOL], sums[row, SECOND] = symbol, second
            sums[row, OPEN] = sums[row, HIGH] = sums[row, LOW] = price
            sums[row, VOLUME] = sums[row, COUNT] = sums[row, BUYS] = 0
            sums[row, FIRST_ID] = agg_id
            sums[row, BEFORE] = symbols[symbol, NEWEST]
            quotes[row, :] = 0
            symbols[symbol, NEWEST] = row
        if after == NO_IDS:
            symbols[symbol, SINCE] = agg_id
        elif agg_id != after:
            jump = state[N_JUMPS]
            state[N_JUMPS] += 1
            jumps[jump, 0], jumps[jump, 1], jumps[jump, 2] = symbol, after, agg_id
        symbols[symbol, AFTER] = agg_id + 1
        sums[row, HIGH] = max(sums[row, HIGH], price)
        sums[row, LOW] = min(sums[row, LOW], price)
        sums[row, CLOSE] = price
        sums[row, VOLUME] += quantity
        sums[row, COUNT] += last - first + 1
        sums[row, LAST_ID] = agg_id
        p, q = np.uint64(price), np.uint64(quantity)
        bottom = (p & low32) * (q & low32)
        middle = (p >> bits32) * (q & low32) + (p & low32) * (q >> bits32) + (bottom >> bits32)
        low = (middle << bits32) | (bottom & low32)
        high = (p >> bits32) * (q >> bits32) + (middle >> bits32)
        quotes[row, 0] += low
        quotes[row, 1] += high + np.uint64(quotes[row, 0] < low)
        if not is_buyer_maker:
            sums[row, BUYS] += quantity
            quotes[row, 2] += low
            quotes[row, 3] += high + np.uint64(quotes[row, 2] < low)
        state[TRADES] += 1
        state[WATERMARK] = watermark = max(watermark, event_time)
    return len(starts), END
