"""What topics say about seconds that are missing: declared losses, and times without a subscription."""

import json
import time
from collections.abc import Iterator

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from flows.channels import GAPS, RAW_AGGTRADE
from flows.gap_ledger import LedgerRow, read_ledger
from flows.partitioning import partition_of
from infra.tls import kafka_security

ANSWER_S = 15.0
POLL_S = 0.1  # a call waits for all that it may take


class LogExcerpts:
    """Every method raises KafkaException while Kafka is away."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._bootstrap = bootstrap_servers
        self._consumer = Consumer(
            {
                **kafka_security(),
                "bootstrap.servers": bootstrap_servers,
                "group.id": "verify",  # never joined: partitions are assigned by hand
                "enable.auto.commit": False,
                "enable.partition.eof": True,  # the last offsets may be without records: compaction
            }
        )

    def close(self) -> None:
        """Leave Kafka."""
        self._consumer.close()

    def losses(self) -> list[LedgerRow]:
        """The ledger's rows in the state `lost`; none where there is no ledger."""
        if not self._partitions(GAPS.name):
            return []
        return [row for row in read_ledger(self._bootstrap, ANSWER_S) if row.state == "lost"]

    def subscriptions(self, symbol: str, start_ms: int, end_ms: int) -> list[tuple[int, bool]]:
        """(E, on) of the symbol's subscription records that stand in the raw log between these times, in its order."""
        partitions = self._partitions(RAW_AGGTRADE)
        if not partitions:
            return []
        partition = partition_of(symbol, partitions)
        ends = []
        for time_ms in (start_ms, end_ms):
            asked = [TopicPartition(RAW_AGGTRADE, partition, time_ms)]
            (found,) = self._consumer.offsets_for_times(asked, timeout=ANSWER_S)
            ends.append(None if found.offset in (OFFSET_END, -1) else found.offset)
        if ends[0] is None:
            return []
        found = []
        for message in self._read(RAW_AGGTRADE, partition, ends[0], ends[1]):
            value = message.value() or b""
            if value.startswith(b'{"e":"subscription"'):
                record = json.loads(value)
                if record["s"] == symbol:
                    found.append((record["E"], record["on"]))
        return found

    def _partitions(self, topic: str) -> int:
        found = self._consumer.list_topics(topic, timeout=ANSWER_S).topics[topic]
        return 0 if found.error is not None else len(found.partitions)

    def _read(self, topic: str, partition: int, start: int, end: int | None) -> Iterator[Message]:
        """The records of [start, end), or up to where the partition ends now."""
        if not self._partitions(topic):
            return
        low, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=ANSWER_S)
        end = high if end is None else min(end, high)
        start = max(start, low)
        if start >= end:
            return
        self._consumer.assign([TopicPartition(topic, partition, start)])
        try:
            heard = time.monotonic()
            while time.monotonic() < heard + ANSWER_S:
                for message in self._consumer.consume(1_000, timeout=POLL_S):
                    heard = time.monotonic()
                    if message.error() is not None:
                        if message.error().code() == KafkaError._PARTITION_EOF:
                            return
                        raise KafkaException(message.error())
                    if message.offset() < end:
                        yield message
                    if message.offset() >= end - 1:
                        return
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"reading {topic}[{partition}]"))
        finally:
            self._consumer.unassign()
