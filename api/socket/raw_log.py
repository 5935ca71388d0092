"""One raw topic for any number of readers: live from memory, older records from Kafka."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Set
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from api.socket.errors import NotAvailable, OutOfLog
from api.socket.history import History
from api.socket.records import Block
from api.socket.tail import Tail
from flows.channels import Topic
from flows.partitioning import partition_of
from infra.tls import kafka_security

LINGER_S = 10.0  # the tail is kept for so long after its last reader
_ANSWER_S = 3.0

log = logging.getLogger(__name__)


class Cursor:
    """Where a reader is in one partition, and what it wants of it (`symbols` None: all)."""

    __slots__ = ("offset", "partition", "symbols", "time_ms", "wake")

    def __init__(self, partition: int, offset: int, symbols: Set[str] | None, wake: Callable[[], None]) -> None:
        self.partition, self.offset, self.symbols = partition, offset, symbols
        self.time_ms = 0  # of the record before
        self.wake = wake

    def arrived(self, block: Block) -> None:
        """A block was added to the partition: step over it if there is nothing in it for us, or wake the reader.

        So a reader of a silent symbol stays at the end of the log, where retention can't overtake it.
        """
        if self.offset == block.start and (
            not block.records or (self.symbols is not None and self.symbols.isdisjoint(block.symbols))
        ):
            self.offset, self.time_ms = block.next, block.time_ms
        else:
            self.wake()


class RawLog:
    """The topic's readers and what they share. Use it on the event loop."""

    def __init__(self, bootstrap_servers: str, topic: Topic) -> None:
        self.topic = topic
        self._config: dict[str, Any] = {
            **kafka_security(),
            "bootstrap.servers": bootstrap_servers,
            "group.id": "socket-service",  # never joined: partitions are assigned by hand
            "enable.auto.commit": False,
            "auto.offset.reset": "error",  # an offset out of retention must not be skipped over in silence
            "reconnect.backoff.max.ms": 1000,
        }
        self._history = History(self._config, topic.name)
        self._opening = asyncio.Lock()
        self._tail: Tail | None = None
        self._failure: str | None = None
        self._cursors: dict[int, set[Cursor]] = {p: set() for p in range(topic.partitions)}
        self._readers = 0
        self._asking: Consumer | None = None

    def partitions(self, symbols: Iterable[str] | None) -> dict[int, frozenset[str] | None]:
        """The partitions in which symbols (uppercase) live, each with its symbols; all of them for None."""
        if symbols is None:
            return dict.fromkeys(self._cursors)
        found: dict[int, set[str]] = {}
        for symbol in symbols:
            found.setdefault(partition_of(symbol, self.topic.partitions), set()).add(symbol)
        return {partition: frozenset(names) for partition, names in found.items()}

    async def first_offsets(self, partitions: Iterable[int], timestamp_ms: int) -> dict[int, int]:
        """In each partition the first offset whose timestamp is not before; its end where there is none."""
        found = await self._at_time(partitions, timestamp_ms)
        ends = {partition: await self._end(partition) for partition, offset in found.items() if offset is None}
        # Once more: what has arrived before `ends` were known must not be left out.
        again = await self._at_time(ends, timestamp_ms) if ends else {}
        return {p: next(o for o in (offset, again.get(p), ends.get(p)) if o is not None) for p, offset in found.items()}

    async def _at_time(self, partitions: Iterable[int], timestamp_ms: int) -> dict[int, int | None]:
        asked = [TopicPartition(self.topic.name, partition, timestamp_ms) for partition in partitions]
        found = await self._ask(lambda consumer: consumer.offsets_for_times(asked, timeout=_ANSWER_S))
        return {one.partition: one.offset if one.offset >= 0 else None for one in found}

    async def require_held(self, offsets: dict[int, int]) -> None:
        """Raises OutOfLog for an offset that the log does not hold; its end is held."""
        for partition, offset in offsets.items():
            low, high = await self._bounds(partition)
            if not low <= offset <= high:
                raise OutOfLog(
                    f"offset {offset} of partition {partition} is not in the log, which holds {low} to {high}"
                )

    def end(self, partition: int) -> int:
        """The offset after the newest record that has been read. Raises NotAvailable when reading has failed."""
        if self._tail is None:
            raise NotAvailable(self._failure or "the log is not being read")
        return self._tail.rings[partition].end

    async def read(self, partition: int, offset: int) -> Block | None:
        """The block that begins at `offset` or has it inside; None: try again. Raises FellBehind, NotAvailable."""
        block = self._tail.rings[partition].find(offset) if self._tail else None
        if block is None:
            try:
                block = await self._history.read(partition, offset)
            except KafkaException as error:
                raise NotAvailable(f"{self.topic.name}: {error.args[0].str()}") from error
        return block

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Keep the end of the log in memory meanwhile. Raises NotAvailable."""
        self._readers += 1
        try:
            async with self._opening:
                if self._tail is None:
                    self._tail = await self._new_tail()
            yield
        finally:
            self._readers -= 1
            if not self._readers:
                asyncio.get_running_loop().call_later(LINGER_S, self._close_if_unread)

    @contextlib.contextmanager
    def following(self, cursors: Iterable[Cursor]) -> Iterator[None]:
        """Tell the cursors of what arrives meanwhile."""
        own = list(cursors)
        for cursor in own:
            self._cursors[cursor.partition].add(cursor)
        try:
            yield
        finally:
            for cursor in own:
                self._cursors[cursor.partition].discard(cursor)

    async def close(self) -> None:
        """Stop reading."""
        if self._tail is not None:
            self._tail.stop()
            self._tail = None
        self._history.close()
        if self._asking is not None:
            await asyncio.to_thread(self._asking.close)

    async def _new_tail(self) -> Tail:
        ends = {partition: await self._end(partition) for partition in self._cursors}
        self._failure = None
        tail = Tail(self._config, self.topic.name, ends, self._arrived, lambda reason: self._failed(tail, reason))
        return tail

    def _arrived(self, partition: int, block: Block) -> None:
        for cursor in self._cursors[partition]:
            cursor.arrived(block)

    def _failed(self, tail: Tail, reason: str) -> None:
        if tail is not self._tail:
            return  # stopped before it noticed
        self._tail, self._failure = None, reason
        for cursors in self._cursors.values():
            for cursor in cursors:
                cursor.wake()

    def _close_if_unread(self) -> None:
        if not self._readers and self._tail is not None:
            self._tail.stop()
            self._tail = None

    async def _end(self, partition: int) -> int:
        return (await self._bounds(partition))[1]

    async def _bounds(self, partition: int) -> tuple[int, int]:
        place = TopicPartition(self.topic.name, partition)
        bounds: tuple[int, int] = await self._ask(
            lambda consumer: consumer.get_watermark_offsets(place, timeout=_ANSWER_S)
        )
        return bounds

    async def _ask(self, question: Callable[[Consumer], Any]) -> Any:
        if self._asking is None:
            self._asking = Consumer(self._config)
        try:
            return await _patiently(question, self._asking)
        except KafkaException as error:
            raise NotAvailable(f"{self.topic.name}: {error.args[0].str()}") from error


@retry(
    retry=retry_if_exception_type(KafkaException),  # a partition may be without a leader for a moment
    stop=stop_after_delay(_ANSWER_S),
    wait=wait_fixed(0.2),
    reraise=True,
)
async def _patiently(question: Callable[[Consumer], Any], consumer: Consumer) -> Any:
    return await asyncio.to_thread(question, consumer)
