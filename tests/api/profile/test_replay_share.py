"""What a replay takes of its process: a share of the event loop's time, and two pages of rows.

The loop's clock is a virtual one, which moves with what work is said to cost, and over times when there is none.
"""

import asyncio
import selectors
import time
import uuid
import weakref
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from api.profile import replay
from api.profile.portfolio import Holding, user_head
from api.profile.prices import Quote
from api.profile.replay import LoopShare, Replay
from api.profile.replay_request import ReplayRequest
from api.profile.replay_script import Scene, Script
from api.profile.security import User
from api.profile.viewers import LivePortfolio, Viewer

START = 1_700_000_000_000
SCENE_S, WRITE_S = 0.001, 0.0005
SHARE, BURST_S = 0.25, 0.002


class VirtualTime(selectors.SelectSelector):
    """Seconds; the loop does not wait for its timers, the clock jumps there."""

    now, busy = 0.0, 0.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds
        self.busy += seconds

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "everybody waits for ever"
            self.now += timeout
        return ready

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.SelectorEventLoop(self)
        loop.time = self  # type: ignore[method-assign]
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(work)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> VirtualTime:
    clock = VirtualTime()
    monkeypatch.setattr(replay, "time", SimpleNamespace(time=time.time, monotonic=clock, perf_counter=clock))
    return clock


class Rows(list[bytes]):
    """A list that can be seen to be forgotten."""


class Recorded:
    """A second of each symbol at every time; counts the rows that somebody still holds."""

    def __init__(self) -> None:
        self.asked, self.held, self.most_held = 0, 0, 0

    async def first(self, symbols: Sequence[str], begin_ms: int, end_ms: int) -> int:
        return begin_ms

    async def last_before(self, symbols: Sequence[str], time_ms: int) -> list[bytes]:
        return []

    async def between(self, symbols: Sequence[str], begin_ms: int, end_ms: int) -> Rows:
        rows = Rows(
            f"{at}\t{symbol}\t{at % 997}".encode() for at in range(begin_ms, end_ms, 1000) for symbol in symbols
        )
        self.asked += 1
        self.held += len(rows)
        self.most_held = max(self.most_held, self.held)
        weakref.finalize(rows, self._forget, len(rows))
        await asyncio.sleep(0.01)
        return rows

    def _forget(self, rows: int) -> None:
        self.held -= rows


class Costly(Script):
    """Each scene takes its time."""

    def __init__(self, clock: VirtualTime, *args: Any) -> None:
        super().__init__(*args)
        self._clock = clock

    def play(self, rows: Iterable[bytes], until_ms: int) -> Iterator[Scene]:
        for scene in super().play(rows, until_ms):
            self._clock.work(SCENE_S)
            yield scene


class Client:
    """A connection with its replay; reads `reads` pushes, then no more."""

    def __init__(self, clock: VirtualTime, share: LoopShare, recorded: Recorded, seconds: int, reads: int) -> None:
        self._clock, self._reads = clock, reads
        self.ready, self.pushes = True, -1  # the first one is live
        viewer = Viewer(LivePortfolio(User(uuid.uuid4(), "me")))
        viewer.attach(self, lambda: None)
        holdings = [Holding(Decimal(1), Quote(symbol)) for symbol in ("btcusdt", "ethusdt", "solusdt")]
        script = Costly(clock, user_head("id", "me"), holdings, 60_000)
        request = ReplayRequest(START, START + seconds * 1000, None)
        self.replay = Replay(request, script, recorded, 0.0, self, viewer, share)  # type: ignore[arg-type]

    def write_text(self, text: bytes) -> None:
        self._clock.work(WRITE_S)
        self.pushes += 1
        self.ready = self.pushes < self._reads

    def read_on(self) -> None:
        self.ready, self._reads = True, 1_000_000
        self.replay.catch_up()


def test_replays_together_leave_others_three_quarters_of_the_loop(clock: VirtualTime) -> None:
    """However fast they are to be: a tick each 10 ms comes every time, and soon."""
    share = LoopShare(SHARE, BURST_S)
    seconds = 2000
    late: list[float] = []

    async def ticks() -> None:
        while True:
            due = clock.now + 0.01
            await asyncio.sleep(0.01)
            late.append(clock.now - due)

    async def play() -> None:
        clients = [Client(clock, share, Recorded(), seconds, 1_000_000) for _ in range(3)]
        began, clock.busy = clock.now, 0.0
        ticking = asyncio.create_task(ticks())
        await asyncio.gather(*(client.replay.run() for client in clients))
        ticking.cancel()
        at_once = 3 * (SCENE_S + WRITE_S)
        assert [client.pushes for client in clients] == [seconds] * 3
        assert clock.busy == pytest.approx(3 * seconds * (SCENE_S + WRITE_S))
        assert clock.busy <= (clock.now - began) * SHARE + BURST_S + at_once
        assert max(late) <= BURST_S + 2 * at_once
        assert len(late) >= (clock.now - began) / (0.01 + BURST_S + 2 * at_once)

    clock.run(play())


def test_two_pages_are_held_however_long_the_range_and_slow_the_reader(
    clock: VirtualTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "PAGE_ROWS", 50)
    recorded = Recorded()

    async def play() -> None:
        client = Client(clock, LoopShare(), recorded, 1000, reads=10)
        playing = asyncio.create_task(client.replay.run())
        await asyncio.sleep(3600)
        assert (client.pushes, recorded.asked) == (10, 2)
        client.read_on()
        await playing
        assert client.pushes == 1000

    clock.run(play())
    assert recorded.asked == 63  # of 16 seconds with three coins
    assert recorded.most_held <= 2 * 50
