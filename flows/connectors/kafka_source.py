"""A Bytewax source that reads a topic in chunks: one item is many records, since an item a trade is 5 times slower.

Unlike Bytewax's own KafkaSource it can end at given offsets, knows the log its snapshots belong to, drains on
SIGTERM, and commits the offsets of its snapshots to a consumer group so that lag can be seen.
"""

import logging
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_fixed

from flows import drain
from flows.domain.errors import OutOfRange, WrongLog
from infra.tls import kafka_security

log = logging.getLogger(__name__)

CHUNK_SIZE = 10000
IDLE_WAIT = timedelta(milliseconds=5)
METADATA_TIMEOUT_S = 60
CLOSE_S = 1.0  # that the last commits may take


class Chunk:
    """Consecutive records of one partition, column-wise; keys and offsets are needed for few records, so made last.

    `first_ms` is the timestamp of the first of them.
    """

    __slots__ = ("_keys", "_messages", "_offsets", "first_ms", "partition", "received_ms", "topic", "values")

    def __init__(
        self,
        topic: str,
        partition: int,
        offsets: list[int],
        keys: list[bytes | None],
        values: list[bytes | None],
        received_ms: list[int | None],
        first_ms: int = 0,
    ) -> None:
        self.topic = topic
        self.partition = partition
        self._offsets = offsets
        self._keys = keys
        self.values = values
        self.received_ms = received_ms  # header `received_ms`, None where there is none
        self.first_ms = first_ms
        self._messages: list[Message] | None = None

    @classmethod
    def of(cls, topic: str, partition: int, messages: list[Message]) -> "Chunk":
        """The records as Kafka gave them, none of them an error."""
        headers = [*map(Message.headers, messages)]
        received: list[int | None] = [None] * len(messages)
        if any(headers):
            received = [*map(_received_ms, headers)]
        _, first_ms = messages[0].timestamp()
        chunk = cls(topic, partition, [], [], [*map(Message.value, messages)], received, first_ms)
        chunk._messages = messages
        return chunk

    @property
    def offsets(self) -> list[int]:
        """The offset of each record."""
        if self._messages is not None:
            self._columns()
        return self._offsets

    @property
    def keys(self) -> list[bytes | None]:
        """The key of each record."""
        if self._messages is not None:
            self._columns()
        return self._keys

    def _columns(self) -> None:
        assert self._messages is not None
        self._offsets = [*map(Message.offset, self._messages)]
        self._keys = [*map(Message.key, self._messages)]
        self._messages = None

    def __reduce__(self) -> tuple[Any, ...]:
        """For another process, to which Kafka's own objects can't go."""
        columns = self.topic, self.partition, self.offsets, self.keys, self.values, self.received_ms, self.first_ms
        return Chunk, columns


@dataclass(frozen=True, slots=True)
class Position:
    """A partition's snapshot: the next offset to read, and the log it belongs to."""

    cluster_id: str
    topic: str
    offset: int


class Liveness:
    """When the source last polled Kafka: `reason()` is None while that goes on."""

    def __init__(self) -> None:
        self._polled = 0.0

    def touch(self) -> None:
        """Note a poll."""
        self._polled = time.monotonic()

    def reason(self) -> str | None:
        """Why the flow is not well, or None."""
        if not self._polled:
            return "has not begun to read"
        idle = time.monotonic() - self._polled
        return f"has not polled Kafka for {idle:.0f} s" if idle > 10 else None


class KafkaSource(FixedPartitionedSource[tuple[str, Chunk], Position]):
    """Items are (partition as text, Chunk). Starts at the earliest offset.

    With `stop`, a partition ends before that offset; partitions not named in it are not read.
    Raises OutOfRange or WrongLog for a snapshot that the log can't continue.
    """

    def __init__(
        self,
        bootstrap_servers: str,
        topic: str,
        group: str | None = None,
        *,
        chunk_size: int = CHUNK_SIZE,
        stop: Mapping[int, int] | None = None,
    ) -> None:
        self.topic = topic
        self.group = group
        self.chunk_size = chunk_size
        self.stop = stop
        self.liveness = Liveness()
        self.patience = CLOSE_S
        self.config: dict[str, Any] = {
            **kafka_security(),
            "bootstrap.servers": bootstrap_servers,
            "group.id": group or f"{topic}-reader",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",  # an offset out of retention must not be skipped over in silence
            "fetch.wait.max.ms": 100,
            "fetch.queue.backoff.ms": 10,  # a full queue is asked again after a second otherwise, and runs empty before
            "queued.max.messages.kbytes": 16_384,
        }

    def list_parts(self) -> list[str]:
        """The topic's partitions, those of `stop` where a range is asked for."""
        consumer = Consumer(self.config)
        try:
            found = consumer.list_topics(self.topic, timeout=METADATA_TIMEOUT_S).topics[self.topic]
        finally:
            consumer.close()
        if found.error is not None:
            raise OutOfRange(f"topic {self.topic}: {found.error.str()}")
        return [str(p) for p in sorted(found.partitions) if self.stop is None or p in self.stop]

    def build_part(self, _step_id: str, for_part: str, resume_state: Position | None) -> "KafkaPartition":
        """One partition, from its snapshot or from the start."""
        return KafkaPartition(self, int(for_part), resume_state)


class KafkaPartition(StatefulSourcePartition[tuple[str, Chunk], Position]):
    """One partition of a KafkaSource; has a consumer of its own."""

    def __init__(self, source: KafkaSource, partition: int, resume: Position | None) -> None:
        self._source = source
        self._part = str(partition)
        self._partition = partition
        self._stop = None if source.stop is None else source.stop[partition]
        self._consumer = Consumer(source.config)
        self._cluster_id = self._consumer.list_topics(source.topic, timeout=METADATA_TIMEOUT_S).cluster_id
        low, high = self._watermarks()
        self._offset = self._first_offset(resume, low, high)
        self._committed = -1
        self._awake: datetime | None = None
        self._consumer.assign([TopicPartition(source.topic, partition, self._offset)])

    @retry(
        retry=retry_if_exception_type(KafkaException),  # a new topic has no leader for a moment
        stop=stop_after_delay(METADATA_TIMEOUT_S),
        wait=wait_fixed(0.2),
        reraise=True,
    )
    def _watermarks(self) -> tuple[int, int]:
        place = TopicPartition(self._source.topic, self._partition)
        low, high = self._consumer.get_watermark_offsets(place, timeout=METADATA_TIMEOUT_S)
        return low, high

    def _first_offset(self, resume: Position | None, low: int, high: int) -> int:
        where = f"{self._source.topic} partition {self._partition}"
        if resume is None:
            return low
        if (resume.cluster_id, resume.topic) != (self._cluster_id, self._source.topic):
            raise WrongLog(
                f"the snapshot is of topic {resume.topic} in Kafka cluster {resume.cluster_id}, but this is "
                f"{self._source.topic} in cluster {self._cluster_id}; use its own recovery directory"
            )
        if not low <= resume.offset <= high:
            raise OutOfRange(
                f"{where}: the snapshot's offset {resume.offset} is not in the log (it holds {low} to {high}); "
                "remove the recovery directory to begin at the earliest record"
            )
        return resume.offset

    def next_batch(self) -> list[tuple[str, Chunk]]:
        """One chunk, or nothing. Never blocks."""
        if drain.draining() or (self._stop is not None and self._offset >= self._stop):
            raise StopIteration
        self._source.liveness.touch()
        messages = self._consumer.consume(self._source.chunk_size, timeout=0)
        good = messages
        if any(map(Message.error, messages)):
            self._check_errors(messages)
            good = [m for m in messages if m.error() is None]
        if good and self._stop is not None and good[-1].offset() >= self._stop:
            good = [m for m in good if m.offset() < self._stop]
        if not good:
            self._skip_to_stop(any(m.error() is None for m in messages))
            self._awake = datetime.now(UTC) + IDLE_WAIT
            return []
        self._awake = None
        self._offset = good[-1].offset() + 1
        return [(self._part, Chunk.of(self._source.topic, self._partition, good))]

    def _skip_to_stop(self, read_past: bool) -> None:
        """End a bounded range whose last offsets hold no records (compaction, transaction markers)."""
        if self._stop is not None and read_past:
            self._offset = self._stop

    def _check_errors(self, messages: list[Any]) -> None:
        for error in (m.error() for m in messages):
            if error is None:
                continue
            if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                raise OutOfRange(f"{self._source.topic} partition {self._partition} at {self._offset}: {error.str()}")
            if error.fatal() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise KafkaException(error)
            log.warning("kafka: %s", error.str())  # librdkafka goes on by itself

    def next_awake(self) -> datetime | None:
        """A little later when there was nothing, so that an idle partition does not spin."""
        return self._awake

    def snapshot(self) -> Position:
        """The next offset; also committed to the group, only for lag to be seen."""
        if self._source.group and self._offset != self._committed:
            self._committed = self._offset
            self._consumer.commit(
                offsets=[TopicPartition(self._source.topic, self._partition, self._offset)], asynchronous=True
            )
        return Position(self._cluster_id, self._source.topic, self._offset)

    def close(self) -> None:
        """Leave Kafka; whether it took the last commit is not waited for any longer than CLOSE_S, by all partitions.

        It is only for lag to be seen, and a client whose coordinator is away waits for most of a minute.
        """
        closing = threading.Thread(target=self._consumer.close, name=f"close {self._part}", daemon=True)
        closing.start()
        closing.join(self._source.patience)
        if closing.is_alive():
            self._source.patience = 0.0


def _received_ms(headers: list[tuple[str, bytes]] | None) -> int | None:
    for name, value in headers or ():
        if name == "received_ms":  # at most 15 digits, as a time in ms has
            return int(value) if value and value.isdigit() and len(value) < 16 else None
    return None
