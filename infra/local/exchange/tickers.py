"""Rolling 24-hour tickers from the exchange's own trades, kept by the minute.

Closed minutes are also appended to a journal, so that a start reads a day of minutes and not a day of trades.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TextIO

from infra.local.exchange.history import History
from infra.local.exchange.trade import UNIT, Trade
from infra.local.exchange.wire import decimal

MINUTE_MS = 60_000
DAY_MINUTES = 1440


@dataclass(slots=True)
class Minute:
    """One minute's trades: prices and volume in 1e-8, quote volume in 1e-16."""

    minute: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    quote_volume: int
    trades: int


class Ticker:
    """A symbol's last 24 hours. High and low are read off monotone queues, so no minute is looked at twice."""

    def __init__(self, symbol: str, price: int) -> None:
        self.symbol = symbol
        self.event_ms = 0
        self.open = self.close = price  # before the first trade: the listing price
        self.volume = self.quote_volume = self.trades = 0
        self._minutes: deque[Minute] = deque()
        self._highs: deque[tuple[int, int]] = deque()  # (minute, high), falling
        self._lows: deque[tuple[int, int]] = deque()  # (minute, low), rising

    @property
    def high(self) -> int:
        """The highest price."""
        return max(self._highs[0][1], self._minutes[-1].high) if self._highs else self._last("high")

    @property
    def low(self) -> int:
        """The lowest price."""
        return min(self._lows[0][1], self._minutes[-1].low) if self._lows else self._last("low")

    def _last(self, field: str) -> int:
        return int(getattr(self._minutes[-1], field)) if self._minutes else self.close

    def add(self, trade: Trade) -> Minute | None:
        """Take a trade in; returns the minute that it closed, if any."""
        price, quantity = trade.price, trade.quantity
        quote = price * quantity
        minute = trade.trade_ms // MINUTE_MS
        current = self._minutes[-1] if self._minutes else None
        closed = None
        if current is None or minute > current.minute:
            closed, current = current, Minute(minute, price, price, price, price, 0, 0, 0)
            self.restore(current)
        if price > current.high:
            current.high = price
        elif price < current.low:
            current.low = price
        current.close = self.close = price
        current.volume += quantity
        current.quote_volume += quote
        current.trades += trade.trade_count
        self.volume += quantity
        self.quote_volume += quote
        self.trades += trade.trade_count
        self.event_ms = trade.event_ms
        return closed

    def restore(self, minute: Minute) -> None:
        """Append a minute, and let those go that are older than a day."""
        if self._minutes:
            last = self._minutes[-1]
            while self._highs and self._highs[-1][1] <= last.high:
                self._highs.pop()
            while self._lows and self._lows[-1][1] >= last.low:
                self._lows.pop()
            self._highs.append((last.minute, last.high))
            self._lows.append((last.minute, last.low))
        self._minutes.append(minute)
        self.volume += minute.volume
        self.quote_volume += minute.quote_volume
        self.trades += minute.trades
        self.close = minute.close
        oldest = minute.minute - DAY_MINUTES
        while self._minutes[0].minute <= oldest:
            gone = self._minutes.popleft()
            self.volume -= gone.volume
            self.quote_volume -= gone.quote_volume
            self.trades -= gone.trades
        while self._highs and self._highs[0][0] <= oldest:
            self._highs.popleft()
        while self._lows and self._lows[0][0] <= oldest:
            self._lows.popleft()
        self.open = self._minutes[0].open

    def minutes(self) -> Iterator[Minute]:
        """Its minutes that had trades, the oldest first."""
        return iter(self._minutes)

    def payload(self, event_ms: int, micro: bool = False) -> bytes:
        """The miniTicker object."""
        return (
            f'{{"e":"24hrMiniTicker","E":{event_ms * (1000 if micro else 1)},"s":"{self.symbol}",'
            f'"c":"{decimal(self.close)}","o":"{decimal(self.open)}","h":"{decimal(self.high)}",'
            f'"l":"{decimal(self.low)}","v":"{decimal(self.volume)}","q":"{decimal(self.quote_volume // UNIT)}"}}'
        ).encode()


class Tickers:
    """The tickers of all symbols, and their journal."""

    def __init__(self, path: Path, listing_prices: dict[str, int], history: History, now_ms: int) -> None:
        self.by_symbol = {symbol: Ticker(symbol, price) for symbol, price in listing_prices.items()}
        since = now_ms // MINUTE_MS - DAY_MINUTES
        last = dict.fromkeys(self.by_symbol, since)
        for symbol, minute in sorted(_journal(path), key=lambda line: line[1].minute):
            if symbol in last and minute.minute > last[symbol]:
                last[symbol] = minute.minute
                self.by_symbol[symbol].restore(minute)
        self._changed: set[str] = set()
        self._journal = self._rewritten(path)
        for symbol, minute_number in last.items():
            # Trades after the last closed minute that the journal knows.
            self.add(history.symbol(symbol).between((minute_number + 1) * MINUTE_MS, now_ms))
        self._changed = set(self.by_symbol)  # the first report names all, as there is no earlier one

    def add(self, trades: Iterable[Trade]) -> None:
        """Take trades in."""
        for trade in trades:
            if not trade.trade_count:
                continue
            closed = self.by_symbol[trade.symbol].add(trade)
            self._changed.add(trade.symbol)
            if closed:
                self._write(trade.symbol, closed)

    def take_changed(self) -> list[Ticker]:
        """The tickers that changed since the last call."""
        changed, self._changed = self._changed, set()
        return [self.by_symbol[symbol] for symbol in sorted(changed)]

    def close(self) -> None:
        """Close the journal; the open minute is read from the trades at the next start."""
        self._journal.close()

    def _rewritten(self, path: Path) -> TextIO:
        fresh = path.with_suffix(".new")
        self._journal = fresh.open("w", encoding="utf-8")
        for symbol, ticker in self.by_symbol.items():
            for minute in ticker.minutes():
                self._write(symbol, minute)
        self._journal.flush()
        fresh.replace(path)
        return self._journal

    def _write(self, symbol: str, minute: Minute) -> None:
        self._journal.write(json.dumps([symbol, *astuple(minute)], ensure_ascii=False) + "\n")


def _journal(path: Path) -> Iterator[tuple[str, Minute]]:
    """The journal's minutes; a line torn by a crash is left out, its trades are read again."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                symbol, *fields = json.loads(line)
            except ValueError:
                continue
            yield symbol, Minute(*fields)
