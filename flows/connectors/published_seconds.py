"""Reads `binance.secondstat`: the final state of each second of a range, as the topic has it."""

import json
import time
from collections.abc import Collection
from dataclasses import dataclass

from confluent_kafka import Consumer, KafkaException, TopicPartition

from flows.channels import SECONDSTAT
from flows.connectors.kafka_range import TIMEOUT_S, offsets_held, range_consumer
from flows.connectors.partition_reader import PartitionReader
from infra.tls import kafka_security

Key = tuple[int, str]  # timestamp, symbol
# A second that begins so much after the range's end is published when nothing of the range is revised any more; the
# horizon comes on top.
PAST_MS = 60_000


@dataclass
class Published:
    """A second as the topic has it: its highest revision, the JSON before it, and whether one revision differs."""

    revision: int
    state: bytes
    conflicts: bool = False


class PublishedSeconds:
    """Every method raises KafkaException while Kafka is away."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap_servers = bootstrap_servers
        self._consumer: Consumer = range_consumer(bootstrap_servers)

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()

    def read(
        self, start_ms: int, end_ms: int, revision_horizon_ms: int, symbols: Collection[str] = ()
    ) -> dict[Key, Published]:
        """The seconds that begin in [start_ms, end_ms)."""
        bounds = offsets_held(self._consumer, SECONDSTAT.name, range(SECONDSTAT.partitions))
        asked = [TopicPartition(SECONDSTAT.name, p, max(0, start_ms)) for p in bounds]
        found: dict[Key, Published] = {}
        for place in self._consumer.offsets_for_times(asked, timeout=TIMEOUT_S):
            end = bounds[place.partition][1]
            if place.offset >= 0:
                self._read(place.partition, place.offset, end, (start_ms, end_ms), revision_horizon_ms, symbols, found)
        return found

    def _read(
        self,
        partition: int,
        start: int,
        end: int,
        span_ms: tuple[int, int],
        horizon_ms: int,
        symbols: Collection[str],
        found: dict[Key, Published],
    ) -> None:
        reader = PartitionReader(self._bootstrap_servers, SECONDSTAT.name, partition, start, end)
        try:
            while messages := reader.read():
                for message in messages:
                    timestamp, key = message.timestamp()[1], message.key()
                    if span_ms[0] <= timestamp < span_ms[1] and key is not None:
                        symbol = key.decode()
                        if not symbols or symbol in symbols:
                            _keep(found, (timestamp, symbol), message.value() or b"{}")
                if messages[-1].timestamp()[1] >= span_ms[1] + horizon_ms + PAST_MS:
                    return
        finally:
            reader.close()

    def ends(self) -> dict[int, int]:
        """Where the topic ends now, by partition."""
        bounds = offsets_held(self._consumer, SECONDSTAT.name, range(SECONDSTAT.partitions))
        return {p: end for p, (_, end) in bounds.items()}


def _keep(found: dict[Key, Published], key: Key, value: bytes) -> None:
    at = value.rfind(b',"revision":')
    state = value[:at] + b"}"
    revision = int(value[at + 12 : -1]) if at >= 0 and value[at + 12 : -1].isdigit() else -1
    known = found.get(key)
    if known is None or revision > known.revision:
        found[key] = Published(revision, state, known is not None and known.conflicts)
    elif revision == known.revision and state != known.state:
        known.conflicts = True


def fields_of(state: bytes) -> dict[str, object]:
    """A final state's fields as they are written, for people."""
    fields: dict[str, object] = json.loads(state)
    return fields


def await_passed(
    bootstrap_servers: str, group: str, topic: str, ends: dict[int, int], within_s: float
) -> dict[int, tuple[int, int]]:
    """Wait until a group has committed up to these offsets; {partition: (committed, end)} of those that it has not.

    Raises KafkaException.
    """
    consumer = Consumer(
        {**kafka_security(), "bootstrap.servers": bootstrap_servers, "group.id": group, "enable.auto.commit": False}
    )
    deadline = time.monotonic() + within_s
    try:
        while True:
            try:
                found = consumer.committed([TopicPartition(topic, p) for p in ends], timeout=TIMEOUT_S)
            except KafkaException:  # the group's coordinator may be loading
                if time.monotonic() > deadline:
                    raise
                found = []
            behind = {t.partition: (max(t.offset, 0), ends[t.partition]) for t in found}
            behind = {p: (at, end) for p, (at, end) in behind.items() if at < end}
            if (found and not behind) or not ends or time.monotonic() > deadline:
                return behind
            time.sleep(0.2)
    finally:
        consumer.close()
