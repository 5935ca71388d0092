"""The native half of `flows.runs`: reads trades out of their JSON and sums them, until a record is not plain.

Compiled by Numba at its first call and kept beside the source (or under NUMBA_CACHE_DIR), so later starts load it.
"""

# Numba knows integers as int64 and uint64 only, mypy tells Python's from numpy's; and one loop is one pass.
# mypy: disable-error-code="assignment"
# ruff: noqa: PLR0911, PLR0912, PLR0915

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from flows.domain.market import NO_TIME, SECOND_MS
from flows.domain.partition import MAX_AHEAD_MS, MAX_TRADE_AFTER_EVENT_MS

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
F = TypeVar("F", bound=Callable[..., Any])

NO_RECEIVED = np.iinfo(np.int64).max  # a record that does not say when it was received
SLOTS = 4096  # symbols, and symbols by second, that a run may have; a power of two
TABLE = 4 * SLOTS
_MAX_DIGITS = 18  # of a scaled amount or an id: fits 63 bits
_MAX_TIME = 1 << 53
_MAX_SUM = 1 << 62


def _native(function: F) -> F:
    compiled: F
    try:
        compiled = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # there is nowhere to keep it: each process compiles for itself
        compiled = njit(nogil=True)(function)
    return compiled


def _text(text: str) -> Bytes:
    return np.frombuffer(text.encode(), np.uint8)


_HEARTBEAT = _text('{"e":"heartbeat","E":')
_HEAD, _EVENT_TIME, _SYMBOL = _text('{"e":"aggTrade",'), _text('"E":'), _text('"s":"')
_AGG_ID, _PRICE, _QUANTITY = _text('","a":'), _text(',"p":"'), _text('","q":"')
_FIRST, _LAST, _TRADE_TIME, _MAKER = _text('","f":'), _text(',"l":'), _text(',"T":'), _text(',"m":')
_IGNORE, _TRUE, _FALSE, _END = _text(',"M":'), _text("true"), _text("false"), _text("}")

_QUOTE, _BACKSLASH, _POINT, _ZERO, _SPACE, _COMMA, _E = (ord(c) for c in '"\\.0 ,E')


@_native
def _skip(data: Bytes, at: int, end: int, text: Bytes) -> int:
    """The place after `text`, or -1 if it does not stand here."""
    if at < 0 or at + len(text) > end:
        return -1
    for i in range(len(text)):
        if data[at + i] != text[i]:
            return -1
    return at + len(text)


@_native
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


@_native
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


@_native
def _boolean(data: Bytes, at: int, end: int) -> tuple[bool, int]:
    after = _skip(data, at, end, _TRUE)
    if after >= 0:
        return True, after
    return False, _skip(data, at, end, _FALSE)


@_native
def scan(
    data: Bytes,
    starts: Ints,
    ends: Ints,
    received_ms: Ints,
    begin: int,
    watermark: int,
    close_after_ms: int,
    horizon_ms: int,
    table: NDArray[np.int32],
    symbols: Ints,
    sums: Ints,
    quotes: NDArray[np.uint64],
) -> tuple[int, int, int, int, bool]:
    """Sum the run that begins at record `begin`; (end of the run, watermark, symbols, sums, whether it has heartbeats).

    Fills a row of `symbols` each: (start and end of its text in data, first id, id after the last, its newest sum),
    and of `sums` each: (symbol, second, open, high, low, close, volume, trade count, taker buy volume, first id,
    last id, the symbol's sum before), with the quote volumes in `quotes`: (low and high 64 bits, taker buys the same).
    """
    table[:] = -1
    n_symbols, n_sums = 0, 0
    heartbeats = False
    low32 = np.uint64(0xFFFFFFFF)
    bits32 = np.uint64(32)
    for record in range(begin, len(starts)):
        end = ends[record]
        event_time = NO_TIME
        at = _skip(data, starts[record], end, _HEARTBEAT)
        if at >= 0:
            event_time, at = _integer(data, at, end)
            received = received_ms[record]
            if event_time <= 0 or event_time >= _MAX_TIME or _skip(data, at, end, _END) != end:
                return record, watermark, n_symbols, n_sums, heartbeats
            if received != NO_RECEIVED and event_time > received + MAX_AHEAD_MS:
                return record, watermark, n_symbols, n_sums, heartbeats
            heartbeats = True
            watermark = max(watermark, event_time)
            continue
        at = _skip(data, starts[record], end, _HEAD)
        if at >= 0 and at + 1 < end and data[at + 1] == _E:
            event_time, at = _integer(data, _skip(data, at, end, _EVENT_TIME), end)
            if at < 0 or at >= end or event_time <= 0 or event_time >= _MAX_TIME or data[at] != _COMMA:
                return record, watermark, n_symbols, n_sums, heartbeats
            at += 1
            received = received_ms[record]
            if received != NO_RECEIVED and event_time > received + MAX_AHEAD_MS:
                return record, watermark, n_symbols, n_sums, heartbeats
        name = _skip(data, at, end, _SYMBOL)
        if name < 0:
            return record, watermark, n_symbols, n_sums, heartbeats
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
        if _skip(data, at, end, _END) != end or name_end == name:
            return record, watermark, n_symbols, n_sums, heartbeats
        if price == 0 or quantity == 0 or first > last or trade_time == 0 or trade_time >= _MAX_TIME:
            return record, watermark, n_symbols, n_sums, heartbeats
        second = trade_time - trade_time % SECOND_MS
        if second + close_after_ms <= watermark or second + horizon_ms <= watermark:
            return record, watermark, n_symbols, n_sums, heartbeats
        if event_time != NO_TIME and trade_time - event_time > MAX_TRADE_AFTER_EVENT_MS:
            return record, watermark, n_symbols, n_sums, heartbeats

        place = np.int64((hashed ^ (hashed >> bits32)) & np.uint64(TABLE - 1))
        symbol = np.int64(table[place])
        while symbol >= 0:
            known = symbols[symbol, 0]
            length = symbols[symbol, 1] - known
            same = length == name_end - name
            for i in range(length):
                same = same and data[known + i] == data[name + i]
            if same:
                break
            place = (place + 1) & (TABLE - 1)
            symbol = np.int64(table[place])
        if symbol < 0:
            if SLOTS in (n_symbols, n_sums):
                return record, watermark, n_symbols, n_sums, heartbeats
            symbol = n_symbols
            n_symbols += 1
            table[place] = symbol
            symbols[symbol, 0] = name
            symbols[symbol, 1] = name_end
            symbols[symbol, 2] = agg_id
            symbols[symbol, 4] = -1
        elif agg_id != symbols[symbol, 3]:
            return record, watermark, n_symbols, n_sums, heartbeats
        row = symbols[symbol, 4]
        while row >= 0 and sums[row, 1] != second:
            row = sums[row, 11]
        if row < 0:
            if n_sums == SLOTS:
                return record, watermark, n_symbols, n_sums, heartbeats
            row = n_sums
            n_sums += 1
            sums[row, 0], sums[row, 1] = symbol, second
            sums[row, 2] = sums[row, 3] = sums[row, 4] = price
            sums[row, 6] = sums[row, 7] = sums[row, 8] = 0
            sums[row, 9] = agg_id
            sums[row, 11] = symbols[symbol, 4]
            quotes[row, :] = 0
            symbols[symbol, 4] = row
        if sums[row, 6] + quantity >= _MAX_SUM or sums[row, 7] + (last - first) >= _MAX_SUM:
            return record, watermark, n_symbols, n_sums, heartbeats
        symbols[symbol, 3] = agg_id + 1
        sums[row, 3] = max(sums[row, 3], price)
        sums[row, 4] = min(sums[row, 4], price)
        sums[row, 5] = price
        sums[row, 6] += quantity
        sums[row, 7] += last - first + 1
        sums[row, 10] = agg_id
        p, q = np.uint64(price), np.uint64(quantity)
        bottom = (p & low32) * (q & low32)
        middle = (p >> bits32) * (q & low32) + (p & low32) * (q >> bits32) + (bottom >> bits32)
        low = (middle << bits32) | (bottom & low32)
        high = (p >> bits32) * (q >> bits32) + (middle >> bits32)
        quotes[row, 0] += low
        quotes[row, 1] += high + np.uint64(quotes[row, 0] < low)
        if not is_buyer_maker:
            sums[row, 8] += quantity
            quotes[row, 2] += low
            quotes[row, 3] += high + np.uint64(quotes[row, 2] < low)
        watermark = max(watermark, event_time)
    return len(starts), watermark, n_symbols, n_sums, heartbeats
