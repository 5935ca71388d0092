"""Which records of a topic a replay reads: a half-open range of times or offsets, resolved to offsets by partition.

Half-open ranges [X, Y): X and Y are each an ISO time, epoch ms, or `partition:offset,…`. By time, a partition is read
from its first record with a timestamp ≥ X − 1 s: no earlier one can have a trade of the range. By offset, it is read
back 60 s from there, so that the watermark is known; the first second is the next whole one.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from flows.connectors.kafka_range import TIMEOUT_S, offsets_held, range_consumer, read_to_end
from flows.domain.errors import InvalidRange, NoTopic, OutOfRange
from flows.domain.market import SECOND_MS
from flows.domain.times import iso, parse_time

LATEST_MS = 1 << 60  # beyond every time; Kafka's have 63 bits
READ_BACK_MS = 60 * SECOND_MS
_OFFSETS = re.compile(r"\d+:\d+(,\d+:\d+)*")

Offsets = dict[int, int]
Bound = int | Offsets | None  # epoch ms, offsets by partition, or all that there is


@dataclass(frozen=True)
class PartitionRange:
    """What is read of one partition: offsets [start, end), and from which second on (`begin_ms`) there is output.

    With `emit_from`, the first second is the first whole one after the watermark at that offset, if not `begin_ms`.
    `likely_end` is where a range that ends at a time will probably end: for progress.
    """

    partition: int
    start: int
    end: int
    likely_end: int
    begin_ms: int = 0
    emit_from: int | None = None


@dataclass(frozen=True)
class ReplayRange:
    """The partitions to read, in order; with `end_ms`, seconds that end after it are not wanted.

    Partitions are read to their `end`, but no further than to where W ≥ `end_ms` + the revision horizon.
    """

    topic: str
    partitions: tuple[PartitionRange, ...]
    end_ms: int | None = None


def parse_bound(text: str) -> int | Offsets:
    """An end of a range as users write it. Raises InvalidRange."""
    if _OFFSETS.fullmatch(text):
        pairs = [pair.split(":") for pair in text.split(",")]
        offsets = {int(partition): int(offset) for partition, offset in pairs}
        if len(offsets) < len(pairs):
            raise InvalidRange(f"a partition is named twice: {text}")
        return offsets
    try:
        return min(parse_time(text), LATEST_MS)
    except InvalidRange as error:
        raise InvalidRange(f"neither an ISO time, nor epoch ms, nor partition:offset,…: {text!r}") from error


def resolve(
    bootstrap_servers: str,
    topic: str,
    start: Bound = None,
    end: Bound = None,
    revision_horizon_ms: int = 0,
    until: Offsets | None = None,
) -> ReplayRange:
    """The offsets of a range as the topic is now; as it was when it ended at `until`, if that is given.

    Raises NoTopic, InvalidRange for one that is empty or names what is not there, OutOfRange for what retention has
    removed (with the earliest there is), and KafkaException.
    """
    if isinstance(start, int) and isinstance(end, int):
        first, last = _up(start), end // SECOND_MS * SECOND_MS
        if first >= last:
            raise InvalidRange(f"the range is empty: there is no whole second in {iso(start)} to {iso(end)}")
    consumer = range_consumer(bootstrap_servers)
    try:
        return _Resolver(consumer, topic, revision_horizon_ms).resolve(start, end, until)
    finally:
        consumer.close()


def _up(time_ms: int) -> int:
    """The first whole second from a time on."""
    return -(-time_ms // SECOND_MS) * SECOND_MS


def _cut(one: PartitionRange, until: int) -> PartitionRange:
    return replace(one, start=min(one.start, until), end=min(one.end, until))


class _Resolver:
    def __init__(self, consumer: Consumer, topic: str, horizon_ms: int) -> None:
        self._consumer, self._topic, self._horizon_ms = consumer, topic, horizon_ms
        found = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
        if found.error is not None:
            if found.error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC):
                raise NoTopic(f"there is no topic {topic}")
            raise KafkaException(found.error)
        self._all = sorted(found.partitions)
        self._bounds = offsets_held(consumer, topic, self._all)

    def resolve(self, start: Bound, end: Bound, until: Offsets | None) -> ReplayRange:
        partitions = self._partitions(start, end, until)
        self._check_offsets(start, "--from")
        self._check_offsets(end, "--to")
        self._check_offsets(until, "offset")
        firsts = self._first_times([p for p in partitions if self._bounds[p][0] < self._bounds[p][1]])
        ends = {p: end[p] if isinstance(end, dict) else self._bounds[p][1] for p in partitions}
        likely = self._from_time(partitions, end + self._horizon_ms) if isinstance(end, int) else ends
        if isinstance(start, dict):
            ranges = [self._by_offset(p, start[p], ends[p], firsts) for p in partitions]
        else:
            ranges = self._by_time(partitions, start, ends, firsts)
        if until is not None:
            ranges = [_cut(one, until[one.partition]) for one in ranges]
        ranges = [replace(one, likely_end=max(one.start, min(one.end, likely[one.partition]))) for one in ranges]
        if all(one.start >= one.end for one in ranges):
            raise InvalidRange(f"the range holds no records: {self._holds(firsts)}")
        return ReplayRange(self._topic, tuple(ranges), end if isinstance(end, int) else None)

    def _partitions(self, *bounds: Bound) -> list[int]:
        named = [set(bound) for bound in bounds if isinstance(bound, dict)]
        if not named:
            return self._all
        if any(one != named[0] for one in named):
            raise InvalidRange("--from and --to name different partitions")
        if unknown := sorted(named[0] - set(self._all)):
            raise InvalidRange(
                f"topic {self._topic} has no partition {unknown[0]}, only {self._all[0]} to {self._all[-1]}"
            )
        return sorted(named[0])

    def _check_offsets(self, bound: Bound, option: str) -> None:
        for partition, offset in bound.items() if isinstance(bound, dict) else ():
            low, high = self._bounds[partition]
            where = f"{option} {partition}:{offset}"
            if offset < low:
                raise OutOfRange(f"{where} is out of retention: the earliest available offset is {partition}:{low}")
            if offset > high:
                raise OutOfRange(f"{where} is beyond the log, which ends at {partition}:{high}")

    def _by_time(
        self, partitions: Sequence[int], start: int | None, ends: Offsets, firsts: dict[int, int]
    ) -> list[PartitionRange]:
        begin_ms = 0 if start is None else _up(start)
        since = {p: self._bounds[p][0] for p in partitions}
        if start is not None:
            since |= self._from_time(partitions, start - SECOND_MS)
        ranges = []
        for p in partitions:
            low, _ = self._bounds[p]
            begin = begin_ms
            if low and since[p] <= low:  # records that belong to the first second may be gone
                whole = _up(firsts[p] + SECOND_MS) if p in firsts else None
                if start is not None:
                    earliest = f"{whole} ({iso(whole)}), offset {p}:{low}" if whole else f"offset {p}:{low}"
                    raise OutOfRange(
                        f"{iso(start)} is out of partition {p}'s retention: the earliest available is {earliest}"
                    )
                begin = whole or 0
            ranges.append(PartitionRange(p, since[p], max(since[p], ends[p]), 0, begin))
        return ranges

    def _by_offset(self, p: int, offset: int, end: int, firsts: dict[int, int]) -> PartitionRange:
        low, _ = self._bounds[p]
        if offset >= end:
            raise InvalidRange(f"the range is empty: partition {p} from {offset} to {end} (exclusive)")
        at_ms = self._times({p: offset}).get(p, 0)
        back = min(self._from_time([p], max(0, at_ms - READ_BACK_MS))[p], offset)
        begin_ms = _up(firsts[p] + SECOND_MS) if low and back <= low and p in firsts else 0
        if offset == low == 0:
            return PartitionRange(p, offset, end, 0)
        return PartitionRange(p, back, end, 0, begin_ms, offset)

    def _from_time(self, partitions: Sequence[int], time_ms: int) -> Offsets:
        """The first offset with a timestamp from a time on; the end where there is none."""
        asked = [self._place(p, max(0, time_ms)) for p in partitions]
        found = self._consumer.offsets_for_times(asked, timeout=TIMEOUT_S)
        return {t.partition: t.offset if t.offset >= 0 else self._bounds[t.partition][1] for t in found}

    def _first_times(self, partitions: Sequence[int]) -> dict[int, int]:
        return self._times({p: self._bounds[p][0] for p in partitions})

    def _times(self, offsets: Offsets) -> dict[int, int]:
        """The timestamps of single records."""
        places = [self._place(p, offset) for p, offset in offsets.items()]
        ends = {p: offset + 1 for p, offset in offsets.items()}
        return {m.partition(): m.timestamp()[1] for m in read_to_end(self._consumer, places, ends)}

    def _holds(self, firsts: dict[int, int]) -> str:
        if not firsts:
            return f"topic {self._topic} is empty"
        last = self._times({p: self._bounds[p][1] - 1 for p in firsts})
        return f"topic {self._topic} holds {iso(min(firsts.values()))} to {iso(max(last.values()))}"

    def _place(self, partition: int, offset: int = 0) -> TopicPartition:
        return TopicPartition(self._topic, partition, offset)
