"""Records of the raw topics, decoded from JSON: typed, in chunks, one poison record never spoiling its neighbours."""

from collections.abc import Sequence
from typing import Annotated

import msgspec

from flows.domain.errors import InvalidRecord
from flows.domain.market import NO_TIME
from flows.domain.miniticker import MiniTicker


class RawTrade(msgspec.Struct, gc=False, rename={
    "event_type": "e", "event_time": "E", "symbol": "s", "agg_id": "a", "price": "p", "quantity": "q",
    "first_trade_id": "f", "last_trade_id": "l", "trade_time": "T", "is_buyer_maker": "m",
}):  # fmt: skip
    """A record of `binance.raw.aggtrade`: trade, heartbeat or subscription (`flows.domain.market.LogRecord`)."""

    event_type: str
    event_time: Annotated[int, msgspec.Meta(gt=NO_TIME)] = NO_TIME  # a record can't claim to have no E
    symbol: str | None = None
    agg_id: int | None = None
    price: str | None = None
    quantity: str | None = None
    first_trade_id: int | None = None
    last_trade_id: int | None = None
    trade_time: int | None = None
    is_buyer_maker: bool | None = None
    on: bool | None = None


_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_trade = msgspec.json.Decoder(RawTrade)


def decode_trades(values: Sequence[bytes | None]) -> "list[RawTrade | InvalidRecord]":
    """Each value as a RawTrade, or the reason why it is none; the same however the values are chunked."""
    try:
        joined = b"\n".join(values)  # type: ignore[arg-type]
    except TypeError:  # a record without a value
        return [_decode_one(value) for value in values]
    # One call for the chunk, where no record can have reached into its neighbour: each holds no line break, and
    # every line break stands between two objects, which no JSON value allows but the top level.
    boundaries = len(values) - 1
    if joined.count(b"\n") == boundaries == joined.count(b"}\n{") and _is_utf8(joined):
        try:
            decoded: list[RawTrade | InvalidRecord] = [*_trade.decode_lines(joined)]
        except _UNDECODABLE:
            decoded = []
        if len(decoded) == len(values):
            return decoded
    return [_decode_one(value) for value in values]


def _is_utf8(data: bytes) -> bool:
    """JSON is UTF-8; msgspec does not look into the names and values of fields that it skips."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _decode_one(value: bytes | None) -> RawTrade | InvalidRecord:
    if value is None:
        return InvalidRecord("record without a value")
    if not _is_utf8(value):
        return InvalidRecord("bad JSON: not UTF-8")
    try:
        return _trade.decode(value)
    except _UNDECODABLE as error:
        return InvalidRecord(f"bad JSON: {error}")


class RawMiniTicker(msgspec.Struct, gc=False, tag_field="e", tag="24hrMiniTicker", rename={
    "event_time": "E", "symbol": "s", "close": "c", "open": "o", "high": "h", "low": "l",
}):  # fmt: skip
    """A record of `binance.raw.miniticker`."""

    event_time: int
    symbol: str
    close: str
    open: str
    high: str
    low: str


_miniticker = msgspec.json.Decoder(RawMiniTicker)


def decode_miniticker(value: bytes | None) -> MiniTicker:
    """A value of `binance.raw.miniticker`. Raises InvalidRecord."""
    if value is None:
        raise InvalidRecord("record without a value")
    if not _is_utf8(value):
        raise InvalidRecord("bad JSON: not UTF-8")
    try:
        raw = _miniticker.decode(value)
    except _UNDECODABLE as error:
        raise InvalidRecord(f"bad JSON: {error}") from error
    return MiniTicker.of(raw.symbol, raw.event_time, raw.close, raw.open, raw.high, raw.low)


class KafkaMsg(msgspec.Struct, frozen=True, gc=False):
    """The value of `binance.miniticker`: one field for each column of `crypto.market_tickers`.

    Times in ms, prices as decimals with 8 decimals.
    """

    message_id: str
    event_type: str
    event_time: int
    receive_time: int
    symbol: str
    close_price: str
    open_price: str
    high_price: str
    low_price: str
    change_price: str
    change_percent: str


class SecondStatMsg(msgspec.Struct, frozen=True, gc=False):
    """The value of `binance.secondstat` (`flows.domain.second_stat`): one field for each column of its table.

    Times in ms; prices and base volumes as decimals with 8 decimals, quote volumes with 16.
    """

    symbol: str
    timestamp: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trade_count: int
    taker_buy_volume: str
    taker_buy_quote_volume: str
    first_trade_id: int
    last_trade_id: int
    revision: int
