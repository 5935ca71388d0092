"""Trades that the streams did not bring, fetched over REST: since the log's end, in holes, before a first trade.

It reaches back 15 min at most; what is older is declared lost, and the log goes on from a second's beginning.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

from flows.connectors.kafka_log import HIGH_WATER
from flows.domain.errors import ExchangeError
from flows.domain.gaps import Claim, Continuity, Gap, Hole
from flows.domain.market import SECOND_MS
from flows.raw_writer import RawWriter, now_ms
from flows.venues.binance.failures import pause_before_retry
from flows.venues.binance.protocol import Payload
from flows.venues.binance.rest import AT_ONCE, PAGE, RestClient, Row

log = logging.getLogger(__name__)

REACH_MS = 15 * 60_000
ASK_AGAIN_S = (0.5, 2.0, 5.0)  # REST may lag behind the streams a little; then it never had the trades

Rows = list[tuple[Row, bytes]]
FirstHeld = Callable[[], Payload | None]


class Backfill:
    """Shared by all connections. `unknown`: wanted symbols that the log's end does not name, with how far it was read.

    A symbol among them that has traded little since then may have been subscribed all the time: all is fetched. A busy
    one would have been seen, so it begins now.
    """

    def __init__(self, rest: RestClient, writer: RawWriter, unknown: Mapping[str, int] | None = None) -> None:
        self._rest, self._writer = rest, writer
        self._unknown = dict(unknown or {})
        self._slots = asyncio.Semaphore(AT_ONCE)  # so that each symbol sees at its turn what is still missing
        self._tasks: set[asyncio.Task[None]] = set()
        self._mending: set[tuple[str, int]] = set()
        self._spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = asyncio.create_task
        writer.began = self.began

    def run_in(self, tasks: asyncio.TaskGroup) -> None:
        """Where work in the background belongs: an error there ends all."""
        self._spawn = tasks.create_task

    def expire(self, now_s: float) -> None:
        """Open ledger rows for holes that have not closed by themselves, and go after them."""
        for continuity in self._writer.continuities.values():
            if continuity.holes:
                for hole in continuity.expire(now_s):
                    self._mend_later(continuity, hole)

    def mend_all(self) -> None:
        """Go after the holes that the ledger had open."""
        for continuity in self._writer.continuities.values():
            for hole in continuity.holes:
                if hole.row is not None:
                    self._mend_later(continuity, hole)

    def began(self, first: Payload) -> None:
        """A symbol's first trade is in the log: fetch its second's earlier ones."""
        self._spawn(self._head(first))

    async def catch_up(self, symbol: str, first_held: FirstHeld) -> None:
        """Bring the log up to the first trade that the connection holds, or to what REST has. Retries for good."""
        attempt = 0
        while True:
            try:
                async with self._slots:
                    await self._catch_up(symbol, first_held)
                    return
            except ExchangeError as error:
                pause_s = pause_before_retry(error, attempt)
                log.warning("%s: %s; again in %.1f s", symbol, error, pause_s)
                attempt += 1
                await asyncio.sleep(pause_s)

    async def _catch_up(self, symbol: str, first_held: FirstHeld) -> None:
        continuity = self._writer.continuity(symbol)
        for hole in [hole for hole in continuity.holes if hole.row is not None]:
            await self._fill(continuity, hole)
        while (next_a := continuity.next_a) is not None:
            while self._writer.backlog > HIGH_WATER:  # noqa: ASYNC110 - Kafka's pace
                await asyncio.sleep(0.1)
            first = first_held()
            if first is not None and first.agg_id is not None and first.agg_id <= next_a:
                return
            rows = await self._rest.agg_trades(symbol, from_id=next_a)
            if rows and rows[0][0].time_ms < _edge_ms():
                rows = await self._new_edge(continuity)
            first = first_held() or first
            until = first.agg_id if first and first.agg_id is not None else None
            self._write(symbol, rows, partial(_is_due, continuity, until))
            if len(rows) < PAGE or (until is not None and rows[-1][0].a >= until):
                return
        await self._begin(symbol, first_held)

    async def _new_edge(self, continuity: Continuity) -> Rows:
        """Give up what is too old; the trades of the first page from the next second on."""
        while True:
            edge_ms = _edge_ms()
            rows = await self._rest.agg_trades(continuity.symbol, start_ms=edge_ms)
            rows = [row for row in rows if row[0].time_ms >= edge_ms]
            newest = rows or await self._rest.agg_trades(continuity.symbol, limit=1)
            if rows or not newest or newest[-1][0].time_ms < edge_ms:
                break
        if newest:
            edge, before_ms = (rows[0][0].a, rows[0][0].time_ms) if rows else (newest[-1][0].a + 1, edge_ms)
            continuity.skip_to(edge, "more than 15 min ago when ingest came back", before_ms)
        return rows

    async def _begin(self, symbol: str, first_held: FirstHeld) -> None:
        """A symbol that the log does not know."""
        since_ms = self._unknown.pop(symbol, None)
        if since_ms is not None and symbol in self._writer.fresh:
            try:
                rows = await self._rest.agg_trades(symbol, start_ms=max(_second(since_ms), _edge_ms()))
            except ExchangeError:
                self._unknown[symbol] = since_ms
                raise
            if 0 < len(rows) < PAGE:
                self._writer.fresh.discard(symbol)
                self._writer.subscription(symbol, True, rows[0][0].time_ms)
                first = first_held()
                self._write(symbol, rows, lambda a: first is None or first.agg_id is None or a < first.agg_id)
                return
        first = first_held()
        if first is not None and symbol in self._writer.fresh:
            self._writer.begin(first)
            await asyncio.shield(self._spawn(self._head(first)))

    async def _head(self, first: Payload) -> None:
        """Fetch what came before a symbol's first trade in the same second. Retries as far as it may reach."""
        symbol, until, attempt = first.symbol, first.agg_id or 0, 0
        second_ms = _second(first.trade_time)
        asked: dict[str, int] = {"start_ms": second_ms}
        while now_ms() - second_ms < REACH_MS:
            try:
                rows = await self._rest.agg_trades(symbol, **asked)
            except ExchangeError as error:
                await asyncio.sleep(pause_before_retry(error, attempt))
                attempt += 1
                continue
            self._write(symbol, rows, lambda a: a < until)
            if len(rows) < PAGE or rows[-1][0].a >= until - 1:
                return
            asked = {"from_id": rows[-1][0].a + 1}
        reason = "the earlier trades of the first second could not be fetched within 15 min"
        self._writer.ledger.put(Gap(symbol, until - 1, until - 1, "lost", reason, second_ms, first.trade_time))

    def _mend_later(self, continuity: Continuity, hole: Hole) -> None:
        assert hole.row is not None
        key = continuity.symbol, hole.row.gap.first
        if key not in self._mending:
            self._mending.add(key)
            task = self._spawn(self._mend(continuity, hole.row))
            task.add_done_callback(partial(lambda key, _task: self._mending.discard(key), key))

    async def _mend(self, continuity: Continuity, row: Claim) -> None:
        """Go after one row of the ledger until all its ids are in the log or lost."""
        attempt = asked = 0
        while hole := next((hole for hole in continuity.holes if hole.row is row), None):
            before_ms = hole.before_ms or row.gap.before_ms
            if before_ms is not None and now_ms() - before_ms > REACH_MS:
                continuity.lose(hole, "REST could not be asked within 15 min")
                continue
            try:
                progress = await self._fill(continuity, hole)
            except ExchangeError as error:
                pause_s = pause_before_retry(error, attempt)
                log.warning(
                    "%s: a hole at %d stays: %s; again in %.1f s", continuity.symbol, hole.first, error, pause_s
                )
                attempt += 1
                await asyncio.sleep(pause_s)
                continue
            if progress or hole not in continuity.holes:
                asked = 0
            elif asked < len(ASK_AGAIN_S):
                await asyncio.sleep(ASK_AGAIN_S[asked])
                asked += 1
            else:
                log.warning("%s: %d to %d are lost: REST has no such trades", continuity.symbol, hole.first, hole.last)
                continuity.lose(hole, "REST has no such trades")
                asked = 0

    async def _fill(self, continuity: Continuity, hole: Hole) -> bool:
        """Ask REST for a hole once; whether that brought any of it."""
        first, last = hole.first, hole.last
        rows = await self._rest.agg_trades(continuity.symbol, from_id=first, limit=min(PAGE, last - first + 1))
        return self._write(continuity.symbol, rows, lambda a: first <= a <= last and continuity.lacks(a)) > 0

    def _write(self, symbol: str, rows: Rows, wanted: Callable[[int], bool]) -> int:
        count = 0
        for row, data in rows:
            if wanted(row.a):
                self._writer.backfilled(symbol, row, data)
                count += 1
        return count


def _is_due(continuity: Continuity, until: int | None, a: int) -> bool:
    return (until is None or a < until) and continuity.lacks(a)


def _second(time_ms: int) -> int:
    return time_ms - time_ms % SECOND_MS


def _edge_ms() -> int:
    """The first second that is wholly within reach."""
    return _second(now_ms() - REACH_MS) + SECOND_MS
