"""One connection to the exchange that is kept up for good: reconnects, rolls over, subscribes what is wanted.

States of a lane: connecting → open → (lost, or due to roll over) → connecting. While it rolls over, two sockets feed
the same handler; what comes twice is dropped downstream by its id.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable
from typing import Protocol

from prometheus_client import Counter

from flows.domain.errors import ExchangeError, ExchangeUnreachable, InvalidRecord
from flows.domain.heartbeat import HeartbeatClock
from flows.domain.partition import MAX_AHEAD_MS
from flows.venues.binance.budget import SlidingBudget, connection_attempts
from flows.venues.binance.client import MarketSocket, StreamSet, open_socket
from flows.venues.binance.failures import pause_before_retry
from flows.venues.binance.protocol import Answer, Payload, read_frame

log = logging.getLogger(__name__)

HEALTHY_AFTER_S = 60.0  # after so long a connection counts as good, and the next failure is retried soon again
LONGEST_LIFE_S = 23 * 3600.0  # the exchange closes at 24 h
OVERLAP_S = 5.0  # how long the old socket stays while the new one has not shown data

CONNECTIONS = Counter("ingest_connections", "Connections opened", ["lane"])
BAD_FRAMES = Counter("ingest_bad_frames", "Frames that are not the exchange's protocol", ["lane"])


class Feed(Protocol):
    """Where a lane's payloads go, and who hears what becomes of its connection."""

    @property
    def holding(self) -> bool:
        """Whether something that came before is not in the log yet, so that no heartbeat may be sent."""

    def opened(self) -> None:
        """A connection after none; not that which takes over from another."""

    def subscribed(self) -> None:
        """The exchange has answered to all that was asked; called again after each change."""

    def lost(self) -> None:
        """There is no connection any more."""

    def take(self, payload: Payload) -> None:
        """A payload, in the moment it was read."""

    def tick(self, event_time: int) -> None:
        """The newest event time in ms, now and then."""


class Lane:
    """A connection and its streams; `bad` gets what is not the exchange's protocol. Lanes share `attempts`."""

    def __init__(
        self,
        name: str,
        ws_url: str,
        feed: Feed,
        bad: Callable[[bytes, str], None],
        attempts: SlidingBudget | None = None,
    ) -> None:
        self.name = name
        self.clock = HeartbeatClock()
        self.reason: str | None = "not connected yet"  # why it is not connected, None when it is
        self._ws_url = ws_url
        self.feed, self._bad = feed, bad
        self._take_payload = feed.take
        self._attempts = attempts or connection_attempts()
        self._wanted: frozenset[str] = frozenset()
        self._wake = asyncio.Event()
        self._socket: MarketSocket | None = None
        self._streams: StreamSet | None = None
        self._newest: StreamSet | None = None
        self._warned: StreamSet | None = None  # of the socket whose end the exchange has announced
        self._data = asyncio.Event()  # the newest socket has shown data
        self._roll_at_s = 0.0
        self._opened_s: float | None = None  # when the newest socket was opened, None when its failure is counted
        self._attempt = 0

    @property
    def connected(self) -> bool:
        """Whether there is an open socket."""
        return self._socket is not None

    @property
    def active(self) -> frozenset[str]:
        """The streams that the exchange has accepted on the open socket."""
        return frozenset(self._streams.active) if self._streams and self._socket else frozenset()

    def want(self, streams: frozenset[str]) -> None:
        """Say which streams the lane is to carry."""
        if streams != self._wanted:
            self._wanted = streams
            self._wake.set()

    def heartbeat_ms(self) -> int | None:
        """The E of a heartbeat sent now, None when there can be none."""
        if self.feed.holding:
            return None
        idle = self._socket is not None and not self.paused and self._socket.idle
        return self.clock.event_time_ms(time.monotonic(), idle) if self._socket else None

    @property
    def paused(self) -> bool:
        """Whether reading is stopped, since Kafka does not keep up."""
        return self._socket is not None and not self._socket.transport.is_reading()

    def pause(self, wanted: bool) -> None:
        """Stop or go on reading from the socket."""
        if self._socket is None or self._socket.transport.is_closing():
            return
        if wanted:
            self._socket.transport.pause_reading()
        else:
            self._socket.transport.resume_reading()

    async def run(self) -> None:
        """Keep the connection up until cancelled."""
        while True:
            try:
                await self._serve()
            except ExchangeError as error:
                self.reason = str(error)
                pause_s = self._pause_s(error)
                log.warning("%s: %s; connecting again in %.1f s", self.name, error, pause_s)
                await asyncio.sleep(pause_s)

    def _pause_s(self, error: ExchangeError) -> float:
        """How long to wait before the next connection; longer each time, until one has lived in health."""
        now_s = time.monotonic()
        if self._opened_s is not None and now_s - self._opened_s > HEALTHY_AFTER_S:
            self._attempt = 0
        self._opened_s = None
        self._attempt += 1
        return pause_before_retry(error, self._attempt - 1)

    async def _serve(self) -> None:
        socket, streams = await self._open()
        self.feed.opened()
        try:
            while True:
                self._socket, self._streams, self.reason = socket, streams, None
                self._wake.clear()
                if socket.transport.is_closing():
                    raise ExchangeUnreachable(f"the connection was lost ({socket.close_code or 'no close frame'})")
                await streams.become(self._wanted)
                await streams.settled()
                if socket.transport.is_closing():
                    continue
                self.feed.subscribed()
                await self._wait(self._roll_at_s - time.monotonic())
                if time.monotonic() >= self._roll_at_s and not socket.transport.is_closing():
                    try:
                        successor = await self._succeed()
                    except ExchangeError as error:
                        pause_s = self._pause_s(error)
                        self._roll_at_s = time.monotonic() + pause_s
                        log.warning("%s: no new connection yet: %s; again in %.1f s", self.name, error, pause_s)
                    else:
                        old, (socket, streams) = socket, successor
                        log.info("%s: rolled over to a new connection", self.name)
                        await old.close()
        except OSError as error:
            raise ExchangeUnreachable(f"the connection was lost ({error})") from error
        finally:
            self._socket = None
            self.feed.lost()
            await socket.close()

    async def _succeed(self) -> tuple[MarketSocket, StreamSet]:
        """A second connection with the same streams, which has shown data if there is any. Raises ExchangeError."""
        socket, streams = await self._open()
        try:
            await streams.become(self._wanted)
            await streams.settled()
            await self._until_data()
            if socket.transport.is_closing():
                raise ExchangeUnreachable("the new connection was lost")
        except BaseException:
            await socket.close()
            raise
        return socket, streams

    async def _open(self) -> tuple[MarketSocket, StreamSet]:
        while delay_s := self._attempts.delay_s(1, time.monotonic()):
            self.reason = self.reason or f"waits {delay_s:.0f} s for the exchange's limit of connections"
            await asyncio.sleep(delay_s)
        self._attempts.spend(1, time.monotonic())
        socket = await open_socket(self._ws_url)
        streams = self._newest = StreamSet(socket)
        socket.on_alive = lambda: self.clock.saw_life(time.monotonic())
        socket.on_lost = lambda: self._lost(streams)
        socket.on_frame = lambda frame: self._take(frame, streams)
        if socket.transport.is_closing():
            raise ExchangeUnreachable("the connection was lost as soon as it was open")
        CONNECTIONS.labels(self.name).inc()
        log.info("%s: connected to %s", self.name, self._ws_url)
        self._opened_s = time.monotonic()
        self._roll_at_s = self._opened_s + LONGEST_LIFE_S * random.uniform(0.95, 1)  # noqa: S311
        return socket, streams

    def _lost(self, streams: StreamSet) -> None:
        """A socket is gone: nobody needs to wait for anything on it."""
        streams.lost()
        self._wake.set()
        self._data.set()

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds)):
                await self._wake.wait()

    async def _until_data(self) -> None:
        """Wait until the newest socket has shown data, for a while at most: a quiet symbol shows none."""
        self._data.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(OVERLAP_S):
                await self._data.wait()

    def _take(self, frame: bytes, streams: StreamSet) -> None:
        try:
            found = read_frame(frame)
        except InvalidRecord as error:
            BAD_FRAMES.labels(self.name).inc()
            self._bad(frame, str(error))
            return
        if isinstance(found, Answer):
            if refused := streams.answered(found):
                log.error("%s: the exchange refused %s", self.name, refused)
            return
        now_s = time.monotonic()
        latest_ms = time.time_ns() // 1_000_000 + MAX_AHEAD_MS
        if streams is self._newest:
            self._data.set()
        for payload in found:
            if payload.event_type == "serverShutdown":
                self._announced(streams)
                continue
            self._take_payload(payload)
            if payload.event_time <= latest_ms:  # others are poison, which moves no watermark
                self.clock.saw_event(payload.event_time, now_s)

    def _announced(self, streams: StreamSet) -> None:
        """The exchange is going to end a connection: roll over, soon, but not from one dying server to the next."""
        if streams is not self._newest or streams is self._warned:
            return
        self._warned = streams
        pause_s = self._pause_s(ExchangeUnreachable("shutdown"))
        log.info("%s: the exchange announces a shutdown, rolling over in %.1f s", self.name, pause_s)
        self._roll_at_s = time.monotonic() + pause_s
        self._wake.set()
