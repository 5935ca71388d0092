"""Where replays are played: which connection plays which, how many there may be, and what their users are told."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from prometheus_client import Gauge

from api.profile.recorded import RecordedSeconds
from api.profile.replay import LoopShare, Replay
from api.profile.replay_request import Refusal, ended, parse_request
from api.profile.replay_script import Script
from api.profile.viewers import Outlet, Viewer

REPLAYS = Gauge("bff_replays", "Replays that are being played")

log = logging.getLogger(__name__)


class Stage:
    """What all replays of this process share; a limit of 0 allows none. `settle_s` as for a Replay."""

    def __init__(
        self, recorded: RecordedSeconds, per_user: int, in_all: int, stale_after_s: float, settle_s: float
    ) -> None:
        self.recorded, self.settle_s = recorded, settle_s
        self.stale_after_ms = int(stale_after_s * 1000)
        self.share = LoopShare()
        self._per_user, self._in_all = per_user, in_all
        self._playing: Counter[object] = Counter()

    async def close(self) -> None:
        """Close the connections to where seconds are recorded."""
        await self.recorded.close()

    @contextmanager
    def place(self, user: object) -> Iterator[None]:
        """One more replay of this user. Raises Refusal."""
        if self._playing[user] >= self._per_user:
            raise Refusal(f"this user has {self._per_user} replays already; stop one of them")
        if self._playing.total() >= self._in_all:
            raise Refusal("too many replays are being played now; try again later")
        self._playing[user] += 1
        REPLAYS.inc()
        try:
            yield
        finally:
            REPLAYS.dec()
            self._playing[user] -= 1
            self._playing += Counter()  # without those that have none


class Theatre:
    """A connection's replays, one after the other: takes the client's messages about them."""

    def __init__(self, stage: Stage, outlet: Outlet, viewer: Viewer) -> None:
        self._stage, self._outlet, self._viewer = stage, outlet, viewer
        self._replay: Replay | None = None
        self._playing: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None  # sees to what is playing

    def hear(self, message: object) -> None:
        """Do what a message asks for, if it is about replays; what can't be done is answered."""
        try:
            match message:
                case {"type": "replay", **fields}:
                    self._begin(fields)
                case {"type": "pause"}:
                    self._current().pause()
                case {"type": "resume"}:
                    self._current().resume()
                case {"type": "stop"}:
                    self._current()
                    if self._playing:
                        self._playing.cancel()
        except Refusal as refusal:
            if self._outlet.ready:  # or our answers would pile up before a client that does not read
                self._outlet.write_text(refusal.text())

    def catch_up(self) -> None:
        """The client has read what it was behind with."""
        if self._replay:
            self._replay.catch_up()
        self._viewer.catch_up()

    async def close(self) -> None:
        """The connection has ended."""
        tasks = [task for task in (self._task, self._playing) if task]  # either may not have begun yet
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(self, fields: dict[Any, Any]) -> None:
        if self._replay:
            raise Refusal("a replay is being played on this connection; stop it first")
        request = parse_request(fields, time.time_ns() // 1_000_000)
        live, stage = self._viewer.live, self._stage
        script = Script(live.head, live.holdings, stage.stale_after_ms)
        replay = Replay(request, script, stage.recorded, stage.settle_s, self._outlet, self._viewer, stage.share)
        self._viewer.hold()
        self._replay, self._playing = replay, asyncio.create_task(self._play(replay))
        self._task = asyncio.create_task(self._see_to(replay, self._playing))

    def _current(self) -> Replay:
        if self._replay is None:
            raise Refusal("no replay is being played on this connection")
        return self._replay

    async def _play(self, replay: Replay) -> None:
        with self._stage.place(self._viewer.live.user_id):
            await replay.run()

    async def _see_to(self, replay: Replay, playing: asyncio.Task[None]) -> None:
        """Wait for the end of a replay, say how it was, and go back to the live portfolio."""
        reason, refusal = "end", None
        try:
            await playing
        except asyncio.CancelledError:
            if cast(asyncio.Task[None], asyncio.current_task()).cancelling():  # it is us who are to end
                raise
            reason = "stopped"
        except Refusal as error:
            reason, refusal = "failed", error
        except Exception:
            log.exception("a replay has failed")
            reason, refusal = "failed", Refusal("the replay has failed")
        await replay.told()
        if refusal:
            self._outlet.write_text(refusal.text())
        if replay.pushes or not refusal:
            self._outlet.write_text(ended(reason, replay.begin_ms, replay.played_ms, replay.pushes))
        self._replay = None
        self._viewer.release()
