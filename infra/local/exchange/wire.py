"""Trades and tickers as the exchange's JSON, and WebSocket frames around it.

aggTrade: {"e":"aggTrade","E":1790000000123,"s":"BTCUSDT","a":501,"p":"64000.10000000","q":"0.01500000","f":900,"l":902,
"T":1790000000120,"m":true,"M":true}
"""

import re

from infra.local.exchange.trade import UNIT, Trade

_AGG_TRADE = b'{"e":"aggTrade","E":%d,"s":"%b","a":%d,"p":"%d.%08d","q":"%d.%08d","f":%d,"l":%d,"T":%d,"m":%b,"M":true}'
_TRADE = b'{"e":"trade","E":%d,"s":"%b","t":%d,"p":"%d.%08d","q":"%d.%08d","T":%d,"m":%b,"M":true}'
_TIMES = re.compile(rb'"([ET])"(\s*:\s*)\d+')
_BOOLEANS = (b"false", b"true")


def decimal(units: int) -> str:
    """A non-negative number of 1e-8 units, with 8 decimals."""
    return f"{units // UNIT}.{units % UNIT:08}"


def retimed(payload: bytes, event: int, trade: int) -> bytes:
    """The payload with other `E` and `T`, and every other byte kept."""
    times = {b"E": event, b"T": trade}
    return _TIMES.sub(lambda found: b'"%b"%b%d' % (found[1], found[2], times[found[1]]), payload)


def agg_trade(trade: Trade, micro: bool = False) -> bytes:
    """The aggTrade payload, times in ms or µs."""
    scale = 1000 if micro else 1
    if trade.wire is not None:
        return retimed(trade.wire, trade.event_ms * scale, trade.trade_ms * scale) if micro else trade.wire
    return _AGG_TRADE % (
        trade.event_ms * scale,
        trade.symbol.encode(),
        trade.agg_id,
        trade.price // UNIT,
        trade.price % UNIT,
        trade.quantity // UNIT,
        trade.quantity % UNIT,
        trade.first_id,
        trade.first_id + trade.trade_count - 1,
        trade.trade_ms * scale,
        _BOOLEANS[trade.buyer_is_maker],
    )


def single_trade(trade: Trade, trade_id: int, quantity: int, micro: bool = False) -> bytes:
    """The payload of one of its individual trades."""
    scale = 1000 if micro else 1
    return _TRADE % (
        trade.event_ms * scale,
        trade.symbol.encode(),
        trade_id,
        trade.price // UNIT,
        trade.price % UNIT,
        quantity // UNIT,
        quantity % UNIT,
        trade.trade_ms * scale,
        _BOOLEANS[trade.buyer_is_maker],
    )


def combined(stream: str, payload: bytes) -> bytes:
    """The payload as a combined stream wraps it."""
    return b'{"stream":"%b","data":%b}' % (stream.encode(), payload)


def text_frame(payload: bytes) -> bytes:
    """An unmasked, final WebSocket text frame: the same bytes serve every connection."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 65536:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload
