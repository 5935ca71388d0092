"""The heart: every tick takes due trades from the source, writes them to the history, then sends them."""

import asyncio
import logging
import time
from functools import partial
from typing import Protocol

from infra.local.exchange.faults import Faults
from infra.local.exchange.history import History
from infra.local.exchange.market import Market
from infra.local.exchange.streams import Hub
from infra.local.exchange.tickers import Tickers
from infra.local.exchange.trade import Trade

logger = logging.getLogger(__name__)

TICK_S = 0.01
TICKER_EVERY_MS = 1000
CATCH_UP_MS = 1000  # after a longer stall trades are made for this much of it


class Source(Protocol):
    """Where trades come from: the market's random walk, or a recording."""

    def due(self, now_ms: int) -> list[Trade]:
        """The trades that happened up to now and were not given before."""


class MarketSource:
    """Trades of the random walk, at the market's rate."""

    def __init__(self, market: Market, now_ms: int) -> None:
        self.market = market
        self._until_ms = now_ms
        self._owed = 0.0

    def due(self, now_ms: int) -> list[Trade]:
        """The trades up to now."""
        after_ms = max(self._until_ms, now_ms - CATCH_UP_MS)
        if now_ms <= after_ms:
            return []
        self._owed += self.market.rate * (now_ms - after_ms) / 1000
        count = int(self._owed)
        self._owed -= count
        self._until_ms = now_ms
        return self.market.trades(count, after_ms, now_ms) if count else []


class Clock:
    """Wall-clock milliseconds that never step back, even where the host's clock does."""

    def __init__(self, not_before_ms: int = 0) -> None:
        self._last_ms = not_before_ms

    def now_ms(self) -> int:
        """Milliseconds since the epoch."""
        self._last_ms = max(self._last_ms, time.time_ns() // 1_000_000)
        return self._last_ms


class Engine:
    """Runs the source through the faults into history, tickers and streams."""

    def __init__(
        self, source: Source, faults: Faults, history: History, tickers: Tickers, hub: Hub, clock: Clock
    ) -> None:
        self._source, self._faults, self._history = source, faults, history
        self._tickers, self._hub, self._clock = tickers, hub, clock
        self._tickers_at_ms = clock.now_ms() + TICKER_EVERY_MS
        self.trades_made = 0

    def tick(self) -> None:
        """One round."""
        now_ms = self._clock.now_ms()
        trades = self._faults.altered(self._source.due(now_ms), now_ms)
        if trades:
            self._history.append(trades)
            self._tickers.add(trades)
            self.trades_made += len(trades)
        for trade in self._faults.deliveries(trades, now_ms):
            self._hub.send_trade(trade)
        if now_ms >= self._tickers_at_ms:
            self._tickers_at_ms = max(self._tickers_at_ms + TICKER_EVERY_MS, now_ms)
            self._send_tickers(now_ms + self._faults.skew_ms(now_ms))
        self._hub.flush()

    def _send_tickers(self, now_ms: int) -> None:
        changed = self._tickers.take_changed()
        if not changed:
            return
        self._hub.send(
            "!miniTicker@arr",
            lambda micro: b"[%b]" % b",".join(ticker.payload(now_ms, micro) for ticker in changed),
        )
        for ticker in changed:
            stream = f"{ticker.symbol.lower()}@miniTicker"
            if self._hub.is_heard(stream):
                self._hub.send(stream, partial(ticker.payload, now_ms))

    async def run(self) -> None:
        """Tick until cancelled. An error (a full disk) ends it: trades that can't be kept must not be sent."""
        loop = asyncio.get_running_loop()
        next_s = loop.time()
        while True:
            self.tick()
            next_s = max(next_s + TICK_S, loop.time())
            await asyncio.sleep(next_s - loop.time())

    def announce_shutdown(self) -> None:
        """Send the event that comes before a planned stop to every connection."""
        now_ms = self._clock.now_ms()
        self._hub.send_all(
            "!serverShutdown",
            lambda micro: b'{"e":"serverShutdown","E":%d}' % (now_ms * (1000 if micro else 1)),
        )
        self._hub.flush()
