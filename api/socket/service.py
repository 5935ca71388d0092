"""Streams of raw payloads: checked requests, positions in the log, batches in order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass

from api.socket.errors import InvalidRequest, NotAvailable
from api.socket.leases import Leases
from api.socket.raw_log import Cursor, RawLog
from api.symbols import SymbolDirectory
from flows.domain.errors import ExchangeError

_FRAMES = 256  # a batch: enough to make its cost small, little enough to hold on to

Offsets = Mapping[int, int]  # partition → offset


@dataclass(frozen=True)
class AtTime:
    """Begin with the first record whose event time (ms) is not before."""

    timestamp_ms: int


@dataclass(frozen=True)
class AtOffset:
    """Begin at this offset of the one partition in which all symbols are."""

    offset: int


@dataclass(frozen=True)
class AtOffsets:
    """Begin at these offsets, in partitions not named live."""

    offsets: Offsets


Start = AtTime | AtOffset | AtOffsets | None  # None: live


class SocketService:
    """Opens streams, until `stop`."""

    def __init__(self, symbols: SymbolDirectory, leases: Leases) -> None:
        self._symbols = symbols
        self._leases = leases
        self._wakes: set[asyncio.Event] = set()  # of the open streams
        self._left = asyncio.Event()  # a stream has ended
        self._stopping = False

    def stop(self) -> None:
        """End all streams with NotAvailable."""
        self._stopping = True
        for wake in self._wakes:
            wake.set()

    async def ended(self) -> None:
        """Wait until no stream is open."""
        while self._wakes:
            self._left.clear()
            await self._left.wait()

    @contextlib.asynccontextmanager
    async def open(
        self, log: RawLog, symbols: Iterable[str], start: Start, *, subscribe: bool
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The stream's frames, joined to batches; without end. Raises SocketError, also while it is read.

        No symbols: all that are in the log. `subscribe`: the exchange streams the symbols meanwhile.
        """
        wanted = {symbol.upper() for symbol in symbols}
        wake = asyncio.Event()
        self._wakes.add(wake)
        try:
            if wanted:
                await self._require_known(wanted)
            with self._leases.held(wanted if subscribe else ()):
                async with log.opened():
                    cursors = await self._cursors(log, wanted or None, start, wake)
                    with log.following(cursors):
                        yield self._batches(log, cursors, wake)
        finally:
            self._wakes.discard(wake)
            self._left.set()

    async def _batches(self, log: RawLog, cursors: list[Cursor], wake: asyncio.Event) -> AsyncIterator[bytes]:
        """Of the partitions that have something, the one that is furthest back in time goes first."""
        while True:
            wake.clear()
            if self._stopping:
                raise NotAvailable("the server is stopping; call again, with the offsets after the last ones received")
            ready = [cursor for cursor in cursors if cursor.offset < log.end(cursor.partition)]
            if not ready:
                await wake.wait()
                continue
            cursor = min(ready, key=lambda one: one.time_ms)
            block = await log.read(cursor.partition, cursor.offset)
            if block is None:
                continue
            frames = block.frames(cursor.symbols, cursor.offset)
            cursor.offset, cursor.time_ms = block.next, block.time_ms
            del block  # not held while the client does not read
            for at in range(0, len(frames), _FRAMES):
                yield b"".join(frames[at : at + _FRAMES])

    async def _cursors(self, log: RawLog, symbols: set[str] | None, start: Start, wake: asyncio.Event) -> list[Cursor]:
        partitions = log.partitions(symbols)
        match start:
            case None:
                offsets: Offsets = {}
            case AtTime(timestamp_ms):
                if timestamp_ms < 0:
                    raise InvalidRequest(f"start: timestamp_ms is {timestamp_ms}")
                offsets = await log.first_offsets(partitions, timestamp_ms)
            case AtOffset(offset):
                if len(partitions) > 1:
                    raise InvalidRequest(
                        f"start: one offset for {len(partitions)} partitions ({_listed(partitions)}); use offsets"
                    )
                offsets = dict.fromkeys(partitions, offset)
            case AtOffsets(offsets):
                if others := offsets.keys() - partitions.keys():
                    raise InvalidRequest(
                        f"start: the symbols are in partitions {_listed(partitions)}, not in {_listed(others)}"
                    )
        if start is not None and not isinstance(start, AtTime):
            await log.require_held(dict(offsets))
        return [Cursor(p, offsets.get(p, log.end(p)), names, wake.set) for p, names in partitions.items()]

    async def _require_known(self, symbols: set[str]) -> None:
        try:
            await self._symbols.refresh()
        except ExchangeError as error:
            raise NotAvailable(f"the exchange's symbols are not known yet: {error}") from error
        unknown = sorted(one for one in symbols if self._symbols.get(one) is None)
        if unknown:
            raise InvalidRequest(f"the exchange has no {', '.join(one.lower()[:40] for one in unknown[:5])}")


def _listed(partitions: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(partitions)))
