"""Recordings into a raw topic, with their own times: the same log whenever it is done, in one go or in several.

What is written is decided by the files alone: trades in their order, and into every partition a heartbeat 2 s after
the start of each second that has trades, so that each second closes. A record that is there already is passed over.
So an import that was killed goes on where it was, and one that is repeated adds nothing.
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from confluent_kafka import TopicPartition

from flows import channels
from flows.connectors.kafka_log import HIGH_WATER, KafkaLog
from flows.connectors.kafka_range import TIMEOUT_S, offsets_held, range_consumer, read_to_end
from flows.connectors.partition_reader import PartitionReader
from flows.domain.errors import InvalidRange, NotAlone, TopicIsNewer
from flows.domain.intervals import IdIntervals
from flows.domain.market import SECOND_MS
from flows.domain.times import iso
from flows.imported_log import AHEAD_MS, KnownRecords
from flows.partitioning import partition_of
from flows.recordings import Recorded

HEARTBEAT_AFTER_MS = 2 * SECOND_MS  # from a second's start: closes it with any allowed lateness up to 1 s
HORIZON_MS = 30 * 60 * SECOND_MS  # REVISION_HORIZON's default
OUT_OF_ORDER_MS = 60 * SECOND_MS  # how far back from the first trade known records are looked for
_CHECK_EVERY = 1000


@dataclass
class ImportCounts:
    """What became of the records; times in ms."""

    trades: int = 0
    known_trades: int = 0
    heartbeats: int = 0
    known_heartbeats: int = 0
    first_ms: int = 0
    last_ms: int = 0
    late_trades: int = 0  # written, but so far behind newer ones that no second counts them


def prepare_topic(bootstrap_servers: str, name: str) -> None:
    """Create the topic, if it is not there. Raises InvalidRange for one of the live system, and KafkaException."""
    if any(name in (topic.name, topic.dlq.name) for topic in channels.all_topics(1)):
        raise InvalidRange(f"{name} is a topic of the live system: recordings go into one of their own")
    channels.create_topics(bootstrap_servers, [channels.imported(name)])


class TopicImport:
    """Takes the trades of one or more recordings, merged.

    Raises TopicIsNewer, NotAlone, DeliveryFailed and KafkaException.
    """

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.counts = ImportCounts()
        self._topic, self._bootstrap_servers = topic, bootstrap_servers
        self._log = KafkaLog(bootstrap_servers)
        self._now_ms = 0  # of what was taken so far, the newest
        self._due: list[int] = []  # heap of seconds whose heartbeat is to come
        self._seconds: IdIntervals | None = None  # that have had trades
        self._ends: dict[int, int] = {}  # offsets, before anything was written
        self._ends_ms: dict[int, int] = {}
        self._known: list[KnownRecords] = []

    def take(self, trade: Recorded) -> None:
        """Write one trade, after the heartbeats that come before it."""
        if not self._known:
            self._open(trade.time_ms)
        while self._due and self._due[0] + HEARTBEAT_AFTER_MS <= trade.time_ms:
            self._heartbeats(heapq.heappop(self._due) + HEARTBEAT_AFTER_MS)
        self._now_ms = max(self._now_ms, trade.time_ms)
        second = trade.trade_ms - trade.trade_ms % SECOND_MS
        if self._is_new(second):
            heapq.heappush(self._due, second)
        partition = partition_of(trade.symbol, len(self._known))
        if self._known[partition].has_trade(trade.symbol, trade.agg_id, self._now_ms):
            self.counts.known_trades += 1
            return
        newest = self._ends_ms.get(partition, 0)
        if self._now_ms + AHEAD_MS < newest:
            raise TopicIsNewer(
                f"topic {self._topic} does not have {trade.symbol}'s trade {trade.agg_id} of {iso(trade.time_ms)}, but "
                f"newer records, up to {iso(newest)}: import older recordings into another topic"
            )
        self._append(partition, trade.value, trade.symbol, trade.time_ms)
        self.counts.trades += 1
        self.counts.late_trades += second + SECOND_MS + HORIZON_MS <= self._now_ms
        if self.counts.trades % _CHECK_EVERY == 0:
            self._log.check()
            while self._log.backlog > HIGH_WATER:
                self._log.flush(0.1)

    def finish(self) -> ImportCounts:
        """Write the last heartbeats and wait until Kafka has everything."""
        while self._due:
            self._heartbeats(heapq.heappop(self._due) + HEARTBEAT_AFTER_MS)
        self._log.flush(TIMEOUT_S)
        self._log.check()
        if self._known:
            self._close_ends()
        return self.counts

    def close(self) -> None:
        """Leave Kafka; what is queued is still delivered. Raises DeliveryFailed."""
        for known in self._known:
            known.close()
        self._log.close(TIMEOUT_S)

    def _open(self, first_ms: int) -> None:
        """See how far the topic goes, and where records like the first one may stand."""
        self.counts.first_ms = first_ms
        consumer = range_consumer(self._bootstrap_servers)
        try:
            partitions = sorted(consumer.list_topics(self._topic, timeout=TIMEOUT_S).topics[self._topic].partitions)
            places = {p: TopicPartition(self._topic, p, max(0, first_ms - OUT_OF_ORDER_MS)) for p in partitions}
            ends = self._ends = {p: end for p, (_, end) in offsets_held(consumer, self._topic, partitions).items()}
            starts = {t.partition: t.offset for t in consumer.offsets_for_times([*places.values()], timeout=TIMEOUT_S)}
            lasts = [TopicPartition(self._topic, p, end - 1) for p, end in ends.items() if end]
            self._ends_ms = {m.partition(): m.timestamp()[1] for m in read_to_end(consumer, lasts)}
        finally:
            consumer.close()
        for p in partitions:
            start = starts[p] if starts[p] >= 0 else ends[p]
            self._known.append(KnownRecords(PartitionReader(self._bootstrap_servers, self._topic, p, start, ends[p])))

    def _is_new(self, second: int) -> bool:
        if self._seconds is None:
            self._seconds = IdIntervals(second // SECOND_MS)
            return True
        return self._seconds.add(second // SECOND_MS)

    def _heartbeats(self, event_time: int) -> None:
        for partition, known in enumerate(self._known):
            if known.has_heartbeat(event_time) or event_time + AHEAD_MS < self._ends_ms.get(partition, 0):
                self.counts.known_heartbeats += 1
            else:
                self._append(partition, b'{"e":"heartbeat","E":%d}' % event_time, None, event_time)
                self.counts.heartbeats += 1

    def _append(self, partition: int, value: bytes, key: str | None, time_ms: int) -> None:
        self._log.append(self._topic, partition, value, key=key, timestamp=time_ms, headers=[])
        self.counts.last_ms = max(self.counts.last_ms, time_ms)

    def _close_ends(self) -> None:
        """A late trade at a partition's end would not be published: a heartbeat makes it so."""
        consumer = range_consumer(self._bootstrap_servers)
        try:
            ends = offsets_held(consumer, self._topic, range(len(self._known)))
            if any(end != self._ends[p] + self._log.appended(self._topic, p) for p, (_, end) in ends.items()):
                raise NotAlone(
                    f"something else wrote into topic {self._topic} during this import, so that trades of one may be "
                    "too late beside the other's: import into another topic"
                )
            lasts = [TopicPartition(self._topic, p, end - 1) for p, (_, end) in ends.items() if end]
            open_ends = [m for m in read_to_end(consumer, lasts) if m.key() is not None]
        finally:
            consumer.close()
        for last in open_ends:
            event_time = max(self._now_ms, last.timestamp()[1]) + 1
            self._append(last.partition(), b'{"e":"heartbeat","E":%d}' % event_time, None, event_time)
            self.counts.heartbeats += 1
        self._log.flush(TIMEOUT_S)


def merged(recordings: Iterable[Iterable[Recorded]]) -> Iterable[Recorded]:
    """The trades of several recordings by their time; one file's keep their order."""
    return heapq.merge(*recordings, key=lambda trade: trade.time_ms)
