"""What the raw log's end says when ingest starts: the last ids of each symbol, holes among them, subscriptions."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import msgspec
from confluent_kafka import Consumer, TopicPartition

from flows import channels
from flows.connectors.kafka_range import TIMEOUT_S, range_consumer, read_to_end
from flows.domain.gaps import Continuity, Gap
from flows.partitioning import partition_of

# A hole is in the ledger after 200 ms: further back the ledger knows more than the log's end needs to.
NEAR_MS = 30_000
FAR_MS = 15 * 60_000  # for symbols that are not in the near part
MOST_RECORDS = 200_000  # of a partition; a symbol that is not among them trades so little that one REST page has it


class _Record(msgspec.Struct, gc=False):
    e: str
    s: str = ""
    E: int = 0
    a: int = -1
    f: int = -1
    l: int = -1  # noqa: E741 - the exchange's name
    T: int = 0
    on: bool = False


_decoder = msgspec.json.Decoder(_Record)


@dataclass
class LogEnd:
    """The end of the log. Each partition was read from `since_ms` to `newest_ms`; one that is empty is in neither."""

    continuities: dict[str, Continuity] = field(default_factory=dict)
    subscribed: set[str] = field(default_factory=set)  # seen, and not ended
    ended: set[str] = field(default_factory=set)
    since_ms: dict[int, int] = field(default_factory=dict)
    newest_ms: dict[int, int] = field(default_factory=dict)

    def since(self, symbol: str, partitions: int) -> int | None:
        """From which time on the log was read for a symbol."""
        return self.since_ms.get(partition_of(symbol, partitions))

    def newest(self, symbol: str, partitions: int) -> int | None:
        """The time of the last record of a symbol's partition."""
        return self.newest_ms.get(partition_of(symbol, partitions))


def read_back(bootstrap_servers: str, wanted: Collection[str], tell: Callable[[Gap], None]) -> LogEnd:
    """Read the end of the raw log as far back as `wanted` symbols need it. Raises KafkaException."""
    consumer = range_consumer(bootstrap_servers)
    try:
        return _Reader(consumer, tell).read(wanted)
    finally:
        consumer.close()


class _Reader:
    def __init__(self, consumer: Consumer, tell: Callable[[Gap], None]) -> None:
        self._consumer, self._tell = consumer, tell
        self._end = LogEnd()
        self._partitions = channels.raw_aggtrade(1).partitions

    def read(self, wanted: Collection[str]) -> LogEnd:
        bounds, newest_ms = {}, self._end.newest_ms
        for partition in range(self._partitions):
            low, high = self._consumer.get_watermark_offsets(self._place(partition), timeout=TIMEOUT_S)
            if high > low:
                bounds[partition] = low, high
        last = [self._place(p, high - 1) for p, (_, high) in bounds.items()]
        for message in read_to_end(self._consumer, last):
            newest_ms[message.partition()] = message.timestamp()[1]
        bounds = {p: bound for p, bound in bounds.items() if p in newest_ms}
        near = self._starts(bounds, {p: newest_ms[p] - NEAR_MS for p in bounds})
        self._take(near, {p: high for p, (_, high) in bounds.items()}, None)
        missing = set(wanted) - self._end.subscribed - self._end.ended
        partitions = {partition_of(symbol, self._partitions) for symbol in missing} & bounds.keys()
        far = self._starts({p: bounds[p] for p in partitions}, {p: newest_ms[p] - FAR_MS for p in partitions})
        far = {p: start for p, start in far.items() if start < near[p]}
        self._take(far, near, missing)
        return self._end

    def _place(self, partition: int, offset: int = 0) -> TopicPartition:
        return TopicPartition(channels.RAW_AGGTRADE, partition, offset)

    def _starts(self, bounds: dict[int, tuple[int, int]], times_ms: dict[int, int]) -> dict[int, int]:
        """The offset of each partition's first record from a time on, but not too far from its end."""
        asked = [self._place(p, max(0, times_ms[p])) for p in bounds]
        found = self._consumer.offsets_for_times(asked, timeout=TIMEOUT_S) if asked else []
        starts = {}
        for place in found:
            low, high = bounds[place.partition]
            starts[place.partition] = min(max(place.offset, low, high - MOST_RECORDS), high)
        return starts

    def _take(self, starts: dict[int, int], ends: dict[int, int], only: set[str] | None) -> None:
        first_ms: dict[int, int] = {}
        places = [self._place(p, start) for p, start in starts.items()]
        for message in read_to_end(self._consumer, places, ends):
            first_ms.setdefault(message.partition(), message.timestamp()[1])
            value = message.value()
            if message.key() is None or value is None:
                continue
            try:
                record = _decoder.decode(value)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue  # poison
            if only is None or record.s in only:
                self._record(record)
        self._end.since_ms |= first_ms

    def _record(self, record: _Record) -> None:
        end = self._end
        if record.e == "aggTrade" and record.a >= 0:
            self._continuity(record.s).saw(record.a, record.f, record.l, record.T, time.monotonic())
            end.subscribed.add(record.s)
        elif record.e == "subscription":
            self._continuity(record.s).end()
            (end.subscribed if record.on else end.ended).add(record.s)
            (end.ended if record.on else end.subscribed).discard(record.s)

    def _continuity(self, symbol: str) -> Continuity:
        found = self._end.continuities.get(symbol)
        if found is None:
            found = self._end.continuities[symbol] = Continuity(symbol, self._tell)
        return found
