"""Candles, computed from the individual trades of the history and from nothing else."""

from collections.abc import Iterator
from dataclasses import dataclass

from infra.local.exchange.history import SymbolHistory
from infra.local.exchange.trade import UNIT
from infra.local.exchange.wire import decimal

_SECOND, _MINUTE, _HOUR, _DAY = 1000, 60_000, 3_600_000, 86_400_000
INTERVALS_MS = {
    "1s": _SECOND,
    **{f"{n}m": n * _MINUTE for n in (1, 3, 5, 15, 30)},
    **{f"{n}h": n * _HOUR for n in (1, 2, 4, 6, 8, 12)},
    **{f"{n}d": n * _DAY for n in (1, 3)},
}


@dataclass(slots=True)
class Kline:
    """A candle: prices and base volumes in 1e-8, quote volumes in 1e-16 units."""

    open_ms: int
    close_ms: int
    open: int
    high: int
    low: int
    close: int
    volume: int = 0
    quote_volume: int = 0
    trades: int = 0
    taker_base: int = 0
    taker_quote: int = 0

    def add(self, price: int, quantity: int, buyer_is_maker: bool) -> None:
        """Take one individual trade in."""
        self.high, self.low, self.close = max(self.high, price), min(self.low, price), price
        self.volume += quantity
        self.quote_volume += price * quantity
        self.trades += 1
        if not buyer_is_maker:
            self.taker_base += quantity
            self.taker_quote += price * quantity

    def row(self) -> list[int | str]:
        """As REST answers it."""
        return [
            self.open_ms,
            *(decimal(value) for value in (self.open, self.high, self.low, self.close, self.volume)),
            self.close_ms,
            decimal(self.quote_volume // UNIT),
            self.trades,
            decimal(self.taker_base),
            decimal(self.taker_quote // UNIT),
            "0",
        ]


def klines(history: SymbolHistory, interval: str, start_ms: int | None, end_ms: int, limit: int) -> list[Kline]:
    """Up to `limit` candles that open in [start_ms, end_ms]; without a start, the last ones before `end_ms`.

    Intervals without trades repeat the last close with no volume, as the exchange's do.
    """
    width = INTERVALS_MS[interval]
    final = end_ms // width * width
    first = final - (limit - 1) * width if start_ms is None else -(-start_ms // width) * width
    oldest = next(history.from_id(0), None)
    if oldest is None:
        return []
    first = max(first, oldest.trade_ms // width * width)
    final = min(final, first + (limit - 1) * width)
    traded = _traded(history, first, final, width)
    before = next((trade for trade in history.before(first) if trade.trade_count), None)
    close = before.price if before else None
    filled = []
    for open_ms in range(first, final + 1, width):
        candle = traded.get(open_ms)
        if candle is None:
            if close is None:
                continue
            candle = Kline(open_ms, open_ms + width - 1, close, close, close, close)
        close = candle.close
        filled.append(candle)
    return filled


def _traded(history: SymbolHistory, first_ms: int, final_ms: int, width: int) -> dict[int, Kline]:
    candles: dict[int, Kline] = {}
    for trade_ms, price, quantity, buyer_is_maker in _single_trades(history, first_ms, final_ms + width - 1):
        open_ms = trade_ms // width * width
        candle = candles.get(open_ms)
        if candle is None:
            candle = candles[open_ms] = Kline(open_ms, open_ms + width - 1, price, price, price, price)
        candle.add(price, quantity, buyer_is_maker)
    return candles


def _single_trades(history: SymbolHistory, start_ms: int, end_ms: int) -> Iterator[tuple[int, int, int, bool]]:
    for trade in history.between(start_ms, end_ms):
        for _, quantity in trade.pieces():
            yield trade.trade_ms, trade.price, quantity, trade.buyer_is_maker
