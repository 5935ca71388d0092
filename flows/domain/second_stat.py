"""One-second statistics of trades: the record that is published, and the accumulator behind it."""

import json
from functools import lru_cache
from typing import NamedTuple

from flows.domain.market import decimal_8, decimal_16


class SecondStat(NamedTuple):
    """Statistics of the trades of one symbol whose trade time is in [timestamp, timestamp + 1000).

    Prices and base volumes are in 1e-8 units, quote volumes in 1e-16; all exact. Apart from the ids and the number
    of decimals these are the fields of Binance's 1-second kline (REST `/api/v3/klines?interval=1s`).
    """

    symbol: str
    timestamp: int  # ms, start of the second
    open: int
    high: int
    low: int
    close: int
    volume: int
    quote_volume: int
    trade_count: int  # Σ(last_trade_id − first_trade_id + 1): raw trades, not aggregates
    taker_buy_volume: int
    taker_buy_quote_volume: int
    first_trade_id: int  # aggregate ids
    last_trade_id: int
    revision: int

    def final_state(self) -> bytes:
        """The JSON without `revision`: what hashes and comparisons are made of."""
        return self._unrevised().encode() + b"}"

    def to_json(self) -> bytes:
        """The JSON that is published, field order fixed."""
        return f'{self._unrevised()},"revision":{self.revision}}}'.encode()

    def _unrevised(self) -> str:
        return (
            f'{{"symbol":{_quoted(self.symbol)},"timestamp":{self.timestamp},'
            f'"open":"{decimal_8(self.open)}","high":"{decimal_8(self.high)}",'
            f'"low":"{decimal_8(self.low)}","close":"{decimal_8(self.close)}",'
            f'"volume":"{decimal_8(self.volume)}","quote_volume":"{decimal_16(self.quote_volume)}",'
            f'"trade_count":{self.trade_count},"taker_buy_volume":"{decimal_8(self.taker_buy_volume)}",'
            f'"taker_buy_quote_volume":"{decimal_16(self.taker_buy_quote_volume)}",'
            f'"first_trade_id":{self.first_trade_id},"last_trade_id":{self.last_trade_id}'
        )


_quoted = lru_cache(maxsize=1 << 14)(json.JSONEncoder(ensure_ascii=False).encode)


AccumulatorRow = tuple[int, int, int, int, int, int, int, int, int, int, int, int]


class Accumulator:
    """The trades of one symbol and second, added in any order; open and close go by aggregate id."""

    __slots__ = (
        "close", "first", "high", "last", "low", "open", "quote_volume", "revision",
        "taker_buy_quote_volume", "taker_buy_volume", "trade_count", "volume",
    )  # fmt: skip

    def __init__(self, agg_id: int, price: int) -> None:
        self.first = self.last = agg_id
        self.open = self.high = self.low = self.close = price
        self.volume = self.quote_volume = self.taker_buy_volume = self.taker_buy_quote_volume = 0
        self.trade_count = self.revision = 0

    def add(self, agg_id: int, price: int, quantity: int, trades: int, is_buyer_maker: bool) -> None:
        """Add one aggregate trade of `trades` raw trades; price and quantity in 1e-8 units."""
        if agg_id >= self.last:
            self.last, self.close = agg_id, price
        elif agg_id < self.first:
            self.first, self.open = agg_id, price
        if price > self.high:
            self.high = price
        elif price < self.low:
            self.low = price
        quote = price * quantity
        self.volume += quantity
        self.quote_volume += quote
        self.trade_count += trades
        if not is_buyer_maker:
            self.taker_buy_volume += quantity
            self.taker_buy_quote_volume += quote

    def merge(self, row: AccumulatorRow) -> None:
        """Add the trades behind another accumulator's row, none of which is here yet; its revision is not looked at."""
        open_, high, low, close, volume, quote, count, buys, buys_quote, first, last, _ = row
        if last > self.last:
            self.last, self.close = last, close
        if first < self.first:
            self.first, self.open = first, open_
        self.high = max(self.high, high)
        self.low = min(self.low, low)
        self.volume += volume
        self.quote_volume += quote
        self.trade_count += count
        self.taker_buy_volume += buys
        self.taker_buy_quote_volume += buys_quote

    def stat(self, symbol: str, timestamp: int) -> SecondStat:
        """What has been added so far, as the record to publish."""
        return SecondStat(symbol, timestamp, *self.row())

    def row(self) -> AccumulatorRow:
        """The state as a flat tuple, for snapshots: what SecondStat has after its symbol and timestamp."""
        return (
            self.open, self.high, self.low, self.close, self.volume, self.quote_volume, self.trade_count,
            self.taker_buy_volume, self.taker_buy_quote_volume, self.first, self.last, self.revision,
        )  # fmt: skip

    @classmethod
    def of(cls, row: AccumulatorRow) -> "Accumulator":
        """The accumulator that `row()` described."""
        new = cls.__new__(cls)
        (
            new.open, new.high, new.low, new.close, new.volume, new.quote_volume, new.trade_count,
            new.taker_buy_volume, new.taker_buy_quote_volume, new.first, new.last, new.revision,
        ) = row  # fmt: skip
        return new
