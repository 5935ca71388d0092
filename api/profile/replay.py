"""One replay on one connection: recorded seconds at the speed that was asked for, or that its client reads at.

It runs on the event loop that serves everybody's pushes, so it may take a share of it only (`LoopShare`, for all
replays of the process together), and holds two pages of rows at the most, however long the range is and however
slowly the client reads.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

from api.profile.recorded import RecordedSeconds, Rows
from api.profile.replay_request import Refusal, ReplayRequest
from api.profile.replay_script import Scene, Script
from api.profile.viewers import Outlet, Viewer
from flows.domain.market import SECOND_MS
from flows.domain.times import iso

PAGE_ROWS = 5000
MAX_LATE_S = 1.0  # what is later than this is not made up for: the rest is later, too


class LoopShare:
    """At most a share of the event loop's time, for all who `spend` from it; a burst may go on for `burst_s`."""

    def __init__(self, share: float = 0.25, burst_s: float = 0.002) -> None:
        self._share, self._burst_s = share, burst_s
        self._left_s, self._counted_s = burst_s, time.monotonic()

    def spend(self, seconds: float) -> bool:
        """It has taken so long; True: `rest` now."""
        now_s = time.monotonic()
        self._left_s = min(self._burst_s, self._left_s + (now_s - self._counted_s) * self._share) - seconds
        self._counted_s = now_s
        return self._left_s < 0

    async def rest(self) -> None:
        """Let others work."""
        await asyncio.sleep(-self._left_s / self._share)


class Page(NamedTuple):
    """The rows of all seconds up to `until_ms`, after those of the page before."""

    until_ms: int
    rows: Rows


class Replay:
    """`run` it in a task of its own; the other methods are for the connection meanwhile.

    `settle_s` is how old a second has to be to be read: later the ETL has stored it.
    """

    def __init__(
        self,
        request: ReplayRequest,
        script: Script,
        recorded: RecordedSeconds,
        settle_s: float,
        outlet: Outlet,
        viewer: Viewer,
        share: LoopShare,
    ) -> None:
        self._request, self._script, self._recorded = request, script, recorded
        self._settle_s, self._outlet, self._viewer, self._share = settle_s, outlet, viewer, share
        self._changed = asyncio.Event()
        self._paused_at: float | None = None
        self._began_s = 0.0  # when begin_ms was due, by the loop's clock
        self.begin_ms, self.played_ms, self.pushes = request.begin_ms, request.begin_ms, 0

    def pause(self) -> None:
        """The recorded clock stands still."""
        if self._paused_at is None:
            self._paused_at = time.monotonic()
            self._changed.set()

    def resume(self) -> None:
        """It goes on."""
        if self._paused_at is not None:
            self._began_s += time.monotonic() - self._paused_at
            self._paused_at = None
            self._changed.set()

    def catch_up(self) -> None:
        """The client has read what it was behind with."""
        self._changed.set()

    async def run(self) -> None:
        """Until the end of the range. Raises Refusal."""
        symbols = self._script.symbols
        if not symbols:
            raise Refusal("there are no coins to replay")
        first_ms = await self._first(symbols)
        known = await self._recorded.last_before(symbols, self.begin_ms)
        if not known:
            self.begin_ms = self.played_ms = first_ms
        self._began_s = time.monotonic()
        if self._paused_at is not None:
            self._paused_at = self._began_s
        if opening := self._script.begin(self.begin_ms, known):
            await self._show(opening)
        async with aclosing(self._pages(symbols)) as pages:
            ahead = asyncio.create_task(_next(pages))
            try:
                while page := await ahead:
                    ahead = asyncio.create_task(_next(pages))
                    await self._play(page)
            finally:
                ahead.cancel()
                await asyncio.gather(ahead, return_exceptions=True)
        await self._due(self._request.end_ms)
        self.played_ms = self._request.end_ms

    async def told(self) -> None:
        """Returns when the client has read most of what it was sent."""
        while not self._outlet.ready:
            await self._change()

    async def _first(self, symbols: list[str]) -> int:
        """When the range's first second begins; what is recorded last may have to be waited for."""
        begin_ms, end_ms = self.begin_ms, self._request.end_ms
        first_ms = await self._recorded.first(symbols, begin_ms, end_ms)
        if first_ms is None and self._readable_ms() < end_ms:
            await self._until_readable(end_ms)
            first_ms = await self._recorded.first(symbols, begin_ms, end_ms)
        if first_ms is not None:
            return first_ms
        where = f"no second of these coins is recorded in {iso(begin_ms)} to {iso(end_ms)}"
        if found := await self._recorded.extent(symbols):
            earliest_ms, last_ms = found
            held = f"the earliest available is {iso(earliest_ms)}, the last ends at {iso(last_ms + SECOND_MS)}"
            raise Refusal(f"{where}: {held}", earliest_ms)
        raise Refusal(f"{where}, nor at any other time")

    async def _pages(self, symbols: list[str]) -> AsyncGenerator[Page]:
        at_ms, end_ms = self.begin_ms, self._request.end_ms
        span_ms = max(1, PAGE_ROWS // len(symbols)) * SECOND_MS
        while at_ms < end_ms:
            await self._until_readable(at_ms + SECOND_MS)
            readable_ms = min(end_ms, self._readable_ms())
            until_ms = min(at_ms + span_ms, readable_ms)
            rows = await self._recorded.between(symbols, at_ms, until_ms)
            if not rows:  # on to where there are some
                until_ms = await self._recorded.first(symbols, until_ms, readable_ms) or readable_ms
            yield Page(until_ms, rows)
            at_ms = until_ms

    def _readable_ms(self) -> int:
        return int((time.time() - self._settle_s) * 1000) // SECOND_MS * SECOND_MS

    async def _until_readable(self, time_ms: int) -> None:
        while (left_s := time_ms / 1000 + self._settle_s - time.time()) > 0:  # noqa: ASYNC110 - wall clocks are set
            await asyncio.sleep(left_s)

    async def _play(self, page: Page) -> None:
        scenes = self._script.play(page.rows, page.until_ms)
        while True:
            began_s = time.perf_counter()
            scene = next(scenes, None)
            is_tired = self._share.spend(time.perf_counter() - began_s)
            if scene is None:
                return
            if is_tired:
                await self._share.rest()
            await self._show(scene)

    async def _show(self, scene: Scene) -> None:
        await self._due(scene.at_ms)
        began_s = time.perf_counter()
        self._viewer.show(scene.push)
        self._share.spend(time.perf_counter() - began_s)
        self.played_ms = max(self.played_ms, scene.at_ms)
        self.pushes += 1

    async def _due(self, at_ms: int) -> None:
        """Returns when the recorded clock shows this, the client can take a push, and nothing is paused."""
        while True:
            if self._paused_at is not None or not self._outlet.ready:
                await self._change()
                continue
            late_s = self._late_s(at_ms)
            if late_s >= 0:
                self._began_s += max(0.0, late_s - MAX_LATE_S)
                return
            try:
                async with asyncio.timeout(-late_s):
                    await self._change()
            except TimeoutError:
                continue

    def _late_s(self, at_ms: int) -> float:
        if self._request.speed is None:
            return 0.0
        due_s = self._began_s + (at_ms - self.begin_ms) / 1000 / self._request.speed
        return time.monotonic() - due_s

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()


async def _next(pages: AsyncGenerator[Page]) -> Page | None:
    return await anext(pages, None)
