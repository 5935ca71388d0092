"""A Bytewax sink that writes to Kafka and confirms: no epoch commits before its records are delivered.

Bytewax's own KafkaSink has no delivery callback and loses records silently when the broker is away.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any, NamedTuple

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient

from flows import drain
from flows.channels import LARGEST_DEAD_LETTER, PARTITIONER
from flows.domain.errors import DeliveryFailed
from infra.tls import kafka_security

log = logging.getLogger(__name__)

STUCK_S = 60.0  # without a delivery, while others find the broker there (librdkafka 2.12.1)


Headers = Sequence[tuple[str, bytes]]
Fields = tuple[str, bytes | None, bytes | None, int, Headers]  # those of a Record


class Record(NamedTuple):
    """A record to write; `timestamp` in ms."""

    topic: str
    key: bytes | None
    value: bytes | None
    timestamp: int
    headers: Headers = ()


class RecordColumns:
    """Records of one topic without headers, column-wise: an object for each would cost more than all else about it."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.keys: list[bytes] = []
        self.values: list[bytes] = []
        self.timestamps: list[int] = []

    def extend(self, keys: list[bytes], values: list[bytes], timestamps: list[int]) -> None:
        """Append records."""
        self.keys += keys
        self.values += values
        self.timestamps += timestamps

    def __len__(self) -> int:
        return len(self.values)

    def __iter__(self) -> Iterator[Fields]:
        return zip(repeat(self.topic), self.keys, self.values, self.timestamps, repeat(()))


class KafkaSink(FixedPartitionedSink[Iterable[Fields], None]):
    """Items are (partition of the source as text, records): the source's partitions spread the writing over workers."""

    def __init__(self, bootstrap_servers: str, parts: int) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._parts = parts

    def list_parts(self) -> list[str]:
        """As many as the source has partitions."""
        return [str(part) for part in range(self._parts)]

    def part_fn(self, item_key: str) -> int:
        """The part whose name is the key."""
        return int(item_key)

    def build_part(self, _step_id: str, _for_part: str, _resume_state: None) -> "KafkaSinkPart":
        """One part, with a producer of its own."""
        return KafkaSinkPart(self._bootstrap_servers)


def answers(config: dict[str, Any]) -> bool:
    """Whether a new client gets an answer from Kafka."""
    try:
        AdminClient(config).list_topics(timeout=5)
    except KafkaException:
        return False
    return True


class KafkaSinkPart(StatefulSinkPartition[Iterable[Fields], None]):
    """Writes in order, without waiting; `snapshot` waits until all is delivered."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._error: KafkaError | None = None
        config: dict[str, Any] = {
            **kafka_security(),
            "bootstrap.servers": bootstrap_servers,
            "enable.idempotence": True,
            "partitioner": PARTITIONER,
            "message.max.bytes": LARGEST_DEAD_LETTER,
            "compression.type": "lz4",
            "linger.ms": 5,
            "delivery.report.only.error": True,  # a report of each delivery costs as much as the record
            "queue.buffering.max.kbytes": 32_768,
            "message.timeout.ms": 0,  # a broker that is away is waited for
        }
        self._producer = Producer(config)
        self._probe = {**kafka_security(), "bootstrap.servers": bootstrap_servers}

    def write_batch(self, items: list[Iterable[Fields]]) -> None:
        """Hand the records to the producer; waits while its buffer is full."""
        produce, delivered = self._producer.produce, self._delivered
        for topic, key, value, timestamp, headers in chain.from_iterable(items):
            while True:
                try:
                    produce(topic, value, key, on_delivery=delivered, timestamp=timestamp, headers=headers or None)
                    break
                except BufferError:
                    self._wait_below(len(self._producer))
        self._producer.poll(0)
        self._check()

    def snapshot(self) -> None:
        """Wait until every record is delivered, so that the epoch may commit."""
        self._wait_below(1)

    def close(self) -> None:
        """Wait for nothing: a snapshot has, or the flow fails, its epoch can't commit, and its records come again.

        Bytewax closes its sinks on the way out of an error too, and there it aborts the process if one of them raises.
        """

    def _wait_below(self, most: int) -> None:
        """Wait until fewer records than that are not delivered.

        Fails where waiting is no use: a client that first connects as Kafka stops may never connect again. One that is
        well takes up to 10 s to find that Kafka is back, so the time counts from when others were seen to find it.
        """
        left, since, others_found_it = 0, time.monotonic(), False
        while len(self._producer) >= most:
            self._producer.flush(0.1)
            self._check()
            if len(self._producer) >= most and drain.overdue():
                drain.give_up(f"Kafka is away: {len(self._producer)} records are not delivered")
            if left != len(self._producer):
                left, since, others_found_it = len(self._producer), time.monotonic(), False
            elif time.monotonic() - since > STUCK_S:
                found_before, others_found_it = others_found_it, answers(self._probe)
                since = time.monotonic()
                if found_before and others_found_it:
                    raise DeliveryFailed(f"Kafka answers, but took none of {left} records for {STUCK_S:.0f} s")
        self._check()

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._error = error

    def _check(self) -> None:
        if self._error is not None:
            raise DeliveryFailed(f"Kafka refused a record: {self._error.str()}")
