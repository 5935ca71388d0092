"""One partition of a replay: its records through the SecondStat core, its seconds out as they become final."""

from collections.abc import Iterator

from confluent_kafka import Message

from flows.connectors.kafka_source import Chunk
from flows.connectors.partition_reader import PartitionReader
from flows.domain.market import SECOND_MS
from flows.domain.partition import NEVER, PartitionStats
from flows.domain.second_stat import SecondStat
from flows.replay_range import PartitionRange, ReplayRange
from flows.runs import TradeRuns


class PartitionReplay:
    """Reads its range step by step. A second is final past the revision horizon, or at the end of the range."""

    def __init__(
        self,
        bootstrap_servers: str,
        whole: ReplayRange,
        part: PartitionRange,
        allowed_lateness_ms: int,
        revision_horizon_ms: int,
    ) -> None:
        self.part, self._topic = part, whole.topic
        self._end_ms = NEVER if whole.end_ms is None else whole.end_ms // SECOND_MS * SECOND_MS
        self._stop_w = NEVER if whole.end_ms is None else self._end_ms + revision_horizon_ms
        self._begin_ms = part.begin_ms if part.emit_from is None else NEVER
        self._stats = PartitionStats(allowed_lateness_ms, revision_horizon_ms)
        self._runs = TradeRuns(self._stats)
        self._reader = PartitionReader(bootstrap_servers, whole.topic, part.partition, part.start, part.end)
        self._pending: dict[int, dict[str, SecondStat]] = {}
        self.offset = part.start  # after the last record taken
        self.records = 0
        self.done = self._reader.ended

    @property
    def watermark(self) -> int:
        """Event time in ms up to which the log was read; NEVER when done."""
        return NEVER if self.done else self._stats.watermark

    @property
    def final_before(self) -> int:
        """Every second that begins before this is final."""
        return NEVER if self.done else self._stats.final_before

    @property
    def counts(self) -> dict[str, int]:
        """What the core made of the records, by outcome."""
        counts = self._stats.counts
        return {name: counts[name] for name in ("trades", "duplicates", "invalid_rows", "late", "rejected")}

    def step(self, wait: bool = True) -> bool:
        """Read on by a chunk; False if there was none yet, and it is not to wait. Raises as `PartitionReader.read`."""
        messages = self._reader.read(wait)
        for piece in self._pieces(messages):
            self._take(piece)
            if self._is_past():
                break
        if self._reader.ended or self._is_past():
            self.done = True
            self.close()
        return bool(messages) or self.done

    def release(self, before: int) -> list[SecondStat]:
        """Give up the seconds that begin before this, in (timestamp, symbol) order."""
        out: list[SecondStat] = []
        for second in sorted(second for second in self._pending if second < before):
            stats = self._pending.pop(second)
            out += [stats[symbol] for symbol in sorted(stats)]
        return out

    def close(self) -> None:
        """Leave Kafka."""
        self._reader.close()

    def _pieces(self, messages: list[Message]) -> Iterator[list[Message]]:
        """A chunk in one piece, but cut at the very record where the output begins, or where the range may end."""
        start = self.part.emit_from
        if start is not None and self._begin_ms == NEVER and messages and messages[-1].offset() >= start:
            before = [m for m in messages if m.offset() < start]
            if before:
                yield before
            self._begin_ms = max(self.part.begin_ms, -(-self._stats.watermark // SECOND_MS) * SECOND_MS)
            messages = messages[len(before) :]
        if self._stop_w != NEVER and max((m.timestamp()[1] for m in messages), default=0) >= self._stop_w:
            yield from ([message] for message in messages)
        elif messages:
            yield messages

    def _take(self, messages: list[Message]) -> None:
        chunk = Chunk.of(self._topic, self.part.partition, messages)
        for output in self._runs.process(chunk.values, chunk.received_ms):
            if isinstance(output, SecondStat) and self._begin_ms <= output.timestamp < self._end_ms:
                self._pending.setdefault(output.timestamp, {})[output.symbol] = output
        self.offset = messages[-1].offset() + 1
        self.records += len(messages)

    def _is_past(self) -> bool:
        """Whether every second of the range is final; W ≥ its end + the horizon, then."""
        return self._stats.final_before > self._end_ms - SECOND_MS
