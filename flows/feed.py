"""One connection's way into the log: held until nothing is missing before what was read, then straight through."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from prometheus_client import Gauge

from flows.backfill import Backfill
from flows.raw_writer import RawWriter, now_ms
from flows.venues.binance.protocol import Payload

log = logging.getLogger(__name__)

HOLD_S = 30.0  # the longest; revisions mend what comes later
HELD_MOST = 100_000  # payloads

DELAY = Gauge("ingest_delay_ms", "Receive time minus event time of the newest payload", ["lane"])


class TradeFeed:
    """The trades of one lane. `holding` says that heartbeats would promise too much."""

    def __init__(self, name: str, writer: RawWriter, backfill: Backfill, symbols: Callable[[], Iterable[str]]) -> None:
        self.name = name
        self.holding = False
        self._writer, self._backfill, self._symbols = writer, backfill, symbols
        self._opened_s = 0.0
        self._held: list[tuple[Payload, int]] = []
        self._first: dict[str, Payload] = {}
        self._catching_up: asyncio.Task[None] | None = None
        self._spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = asyncio.create_task
        self._delay = DELAY.labels(name)

    def run_in(self, tasks: asyncio.TaskGroup) -> None:
        """Where work in the background belongs: an error there ends all."""
        self._spawn = tasks.create_task

    def opened(self) -> None:
        """A connection after none: what it brings is held."""
        self.holding = True
        self._opened_s = time.monotonic()

    def subscribed(self) -> None:
        """The exchange streams what was asked for: from here on only older trades can be missing."""
        if self.holding and self._catching_up is None:
            self._catching_up = self._spawn(self._catch_up())

    def lost(self) -> None:
        """The connection is gone; what is held stays held, until the next one has caught up."""
        if self._catching_up is not None:
            self._catching_up.cancel()
            self._catching_up = None

    def take(self, payload: Payload) -> None:
        """A payload, in the moment it was read."""
        if payload.event_type != "aggTrade" or not payload.symbol:
            self._writer.bad_frame(payload.data, f"unexpected {payload.event_type!r} on a trade lane")
            return
        received_ms = now_ms()
        if not self.holding:
            self._writer.trade(payload, received_ms)
            return
        self._held.append((payload, received_ms))
        if payload.agg_id is not None:
            first = self._first.get(payload.symbol)
            if first is None or first.agg_id is None or payload.agg_id < first.agg_id:
                self._first[payload.symbol] = payload
        if len(self._held) >= HELD_MOST:
            self._release(f"{HELD_MOST} payloads are held")

    def tick(self, event_time: int) -> None:
        """The newest event time, now and then."""
        self._delay.set(now_ms() - event_time)

    async def _catch_up(self) -> None:
        tasks = [
            asyncio.create_task(self._backfill.catch_up(symbol, partial(self._first.get, symbol)))
            for symbol in sorted(self._symbols(), key=lambda symbol: symbol not in self._first)
        ]
        try:
            if tasks:
                left_s = max(0.0, self._opened_s + HOLD_S - time.monotonic())
                done, late = await asyncio.wait(tasks, timeout=left_s, return_when=asyncio.FIRST_EXCEPTION)
                for task in done:
                    task.result()
                self._release(f"{len(late)} symbols are not caught up after {HOLD_S:.0f} s" if late else "")
                await asyncio.gather(*late)
            else:
                self._release("")
            log.info("%s: caught up after %.1f s", self.name, time.monotonic() - self._opened_s)
        finally:
            for task in tasks:
                task.cancel()
        self._catching_up = None

    def _release(self, why_early: str) -> None:
        """Write what is held; heartbeats may go on."""
        if not self.holding:
            return
        if why_early:
            log.warning("%s: %s, going on; what is still missing comes later", self.name, why_early)
        held, self._held, self._first = self._held, [], {}
        self.holding = False
        for payload, received_ms in held:
            self._writer.trade(payload, received_ms)


class TickerFeed:
    """The whole market's minitickers: nothing is owed of them but the newest."""

    holding = False

    def __init__(self, name: str, writer: RawWriter) -> None:
        self._writer = writer
        self._delay = DELAY.labels(name)

    def opened(self) -> None:
        """Nothing to do."""

    subscribed = lost = opened

    def take(self, payload: Payload) -> None:
        """A payload, in the moment it was read."""
        if payload.event_type != "24hrMiniTicker" or not payload.symbol:
            self._writer.bad_frame(payload.data, f"unexpected {payload.event_type!r} on the miniticker lane")
            return
        self._writer.ticker(payload, now_ms())

    def tick(self, event_time: int) -> None:
        """The newest event time, now and then."""
        self._delay.set(now_ms() - event_time)
