"""The gap ledger `tracker.gaps`: which ids of which symbol are not in the log, and what became of them.

Key `symbol:first_missing_a`, compacted. Value:
`{"symbol":"BTCUSDT","first_missing_a":501,"last_missing_a":503,"state":"lost","reason":"…","after_ms":1790000000120,
"before_ms":1790000000250,"updated_ms":1790000001000}`. `after_ms` and `before_ms` are the trade times around the hole.
"""

import time
from collections.abc import Iterable
from typing import Literal

import msgspec
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from prometheus_client import Counter

from flows import channels
from flows.connectors.kafka_log import KafkaLog
from flows.connectors.kafka_range import TIMEOUT_S, read_range
from flows.domain.gaps import Gap
from flows.partitioning import partition_of

GAPS = Counter("ingest_gaps", "Rows written to the gap ledger", ["state"])


class LedgerRow(msgspec.Struct):
    """A row as it is in Kafka, times in ms."""

    symbol: str
    first_missing_a: int
    last_missing_a: int
    state: Literal["open", "backfilled", "lost"]
    reason: str = ""
    after_ms: int | None = None
    before_ms: int | None = None
    updated_ms: int = 0

    @property
    def gap(self) -> Gap:
        """The row in the domain's terms."""
        first, last = self.first_missing_a, self.last_missing_a
        return Gap(self.symbol, first, last, self.state, self.reason, self.after_ms, self.before_ms)


_decoder = msgspec.json.Decoder(LedgerRow)


def read_ledger(bootstrap_servers: str, timeout_s: float = TIMEOUT_S) -> list[LedgerRow]:
    """The newest state of every row, by symbol and id. Raises KafkaException."""
    rows: dict[bytes, LedgerRow] = {}
    for message in read_range(bootstrap_servers, [TopicPartition(channels.GAPS.name, 0, OFFSET_BEGINNING)], timeout_s):
        key, value = message.key() or b"", message.value()
        if value is None:
            rows.pop(key, None)
            continue
        try:
            rows[key] = _decoder.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # not ingest's, which alone writes here
    return sorted(rows.values(), key=lambda row: (row.symbol, row.first_missing_a))


class GapLedger:
    """Writes rows; that something is backfilled only once Kafka has confirmed the trades themselves."""

    def __init__(self, kafka: KafkaLog, partitions: int) -> None:
        self._kafka = kafka
        self._partitions = partitions
        self._waiting: list[tuple[Gap, int, int]] = []  # gap, raw partition, records that must be confirmed there
        self._open: set[tuple[str, int]] = set()
        self._lost: set[tuple[str, int, int]] = set()  # from before: the log's end tells of them once more

    def restore(self, rows: Iterable[LedgerRow]) -> None:
        """Know the rows that are there already."""
        known = [row.gap for row in rows]
        self._open = {(gap.symbol, gap.first) for gap in known if gap.state == "open"}
        self._lost = {(gap.symbol, gap.first, gap.last) for gap in known if gap.state == "lost"}

    @property
    def open(self) -> int:
        """How many rows are open."""
        return len(self._open)

    def put(self, gap: Gap) -> None:
        """A row began or changed."""
        if gap.state == "open":
            self._write(gap)
            return
        if gap.state == "lost" and (gap.symbol, gap.first, gap.last) in self._lost:
            return
        # Behind the trades that settle it: a crash between them would leave a row that says too much.
        partition = partition_of(gap.symbol, self._partitions)
        self._waiting.append((gap, partition, self._kafka.appended(channels.RAW_AGGTRADE, partition)))

    def write_confirmed(self) -> None:
        """Write the rows whose trades have arrived."""
        waiting, self._waiting = self._waiting, []
        for gap, partition, count in waiting:
            if self._kafka.delivered(channels.RAW_AGGTRADE, partition) >= count:
                self._write(gap)
            else:
                self._waiting.append((gap, partition, count))

    def _write(self, gap: Gap) -> None:
        now_ms = time.time_ns() // 1_000_000
        key = (gap.symbol, gap.first)
        if gap.state == "open":
            self._open.add(key)
        else:
            self._open.discard(key)
        GAPS.labels(gap.state).inc()
        row = LedgerRow(
            gap.symbol, gap.first, gap.last, gap.state, gap.reason, gap.after_ms, gap.before_ms, updated_ms=now_ms
        )
        name = f"{gap.symbol}:{gap.first}"
        self._kafka.append(channels.GAPS.name, 0, msgspec.json.encode(row), key=name, timestamp=now_ms, headers=[])
