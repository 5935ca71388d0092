"""A Quix Streams sink that stores each row in ClickHouse once, whatever is killed.

Quix Streams calls `add` for every chunk of records and `flush` before it commits their offsets. Rows are therefore
stored at least once. Of a replacing table that is all there is to it; in others they are stored only once:

- An insert whose outcome is unknown (no answer, connection lost) is sent again first, the same rows with the same
  deduplication token, before anything else is.
- A row that is in the table already is recognised by its key: `Seen`, which reads the table, so that it also holds
  after a restart, after partitions moved here, and for a key that stands in the topic twice.
- Before the table is read for the first time, inserts that an earlier owner of the partitions left running have ended.
"""

import logging
import time
from collections.abc import Callable, Sequence
from itertools import compress
from typing import Any

from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import Message
from prometheus_client import Counter, Gauge

from flows.connectors.clickhouse_table import ClickHouseTable, Insert
from flows.connectors.dead_letters import DeadLetter, DeadLetters
from flows.connectors.json_columns import Decoded
from flows.connectors.quix import BaseSink, SinkBackpressureError
from flows.connectors.seen import Seen
from flows.domain.errors import DeliveryFailed

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 5.0
LARGEST_BATCH = 20_000  # while the reader is far behind

INSERTED = Counter("clickhouse_etl_rows_inserted", "Rows stored", ["table"])
DUPLICATES = Counter("clickhouse_etl_duplicates", "Records whose row is stored already", ["table"])
DEAD_LETTERS = Counter("clickhouse_etl_dead_letters", "Records sent to the DLQ", ["table"])
BATCHES = Counter("clickhouse_etl_batches", "Inserts", ["table"])
WAITING = Gauge("clickhouse_etl_waiting_records", "Records read and not stored yet", ["table"])
LAST_EVENT = Gauge("clickhouse_etl_last_event_time_ms", "Newest event time stored", ["table"])


class StillRunning(Exception):
    """An insert that an earlier owner of the partitions sent has not ended yet."""


class ClickHouseSink(BaseSink):
    """Collects the rows of all partitions into a batch; `enough` and `overdue` say when it is to be flushed.

    `decode` maps the values of a chunk of records to columns of the table.
    """

    def __init__(
        self,
        table: ClickHouseTable,
        dead_letters: DeadLetters,
        decode: Callable[[Sequence[bytes | None]], Decoded],
        batch_size: int,
        batch_timeout_s: float,
    ) -> None:
        super().__init__(on_client_connect_success=lambda: None)
        self._table = table
        self._dead_letters = dead_letters
        self._decode = decode
        self._batch_size = batch_size
        self._batch_timeout_s = batch_timeout_s
        self._seen = Seen(table.times)
        self._columns: list[list[Any]] = []
        self._poison: list[DeadLetter] = []
        self._first_at: float | None = None
        self._unanswered: Insert | None = None
        self._strangers: set[str] | None = None  # inserts of an earlier owner that run; None: not looked yet
        self._outage = Outage(str(table.server))

    def __repr__(self) -> str:
        return f"<ClickHouseSink {self._table.name}>"

    @property
    def size(self) -> int:
        """Records in the batch."""
        return len(self._poison) + (len(self._columns[0]) if self._columns else 0)

    def add(
        self, value: Sequence[Message], key: Any, timestamp: int, headers: Any, topic: str, partition: int, offset: int
    ) -> None:
        """Take a chunk into the batch; what Quix Streams says beside it is of its first message."""
        if self._first_at is None:
            self._first_at = time.monotonic()
        decoded = self._decode([message.value() for message in value])
        if self._columns:
            for column, more in zip(self._columns, decoded.columns, strict=True):
                column.extend(more)
        else:
            self._columns = decoded.columns
        self._poison += [DeadLetter.of(value[index], reason) for index, reason in decoded.rejected]
        WAITING.labels(self._table.name).set(self.size)

    def room(self, behind: bool) -> int:
        """How many more records make the batch full."""
        return max(1, self._full_size(behind) - self.size)

    def full(self, behind: bool) -> bool:
        """Whether the batch has its size: a larger one while the reader is far behind."""
        return self.size >= self._full_size(behind)

    def _full_size(self, behind: bool) -> int:
        return max(self._batch_size, LARGEST_BATCH) if behind else self._batch_size

    def overdue(self) -> bool:
        """Whether the batch has waited for its timeout, or an insert without an answer is to be sent again."""
        if self._first_at is None:
            return False
        return self._unanswered is not None or time.monotonic() - self._first_at >= self._batch_timeout_s

    def flush(self) -> None:
        """Store the batch. Raises SinkBackpressureError when it can't be done now: Quix Streams reads it again then."""
        try:
            if self._first_at is not None:
                self._store()
                self._dead_letters.send(self._poison)
                DEAD_LETTERS.labels(self._table.name).inc(len(self._poison))
                self._outage.over()
        except (ClickHouseError, DeliveryFailed, StillRunning) as error:
            raise SinkBackpressureError(self._outage.pause_s(error)) from error
        finally:
            self._clear()

    def on_paused(self) -> None:
        """Another sink can't go on: these records come again."""
        self._clear()

    def forget(self) -> None:
        """Partitions came or went: drop the batch, and trust nothing that was known of the table."""
        self._clear()
        self._unanswered = None
        self._strangers = None
        self._seen.forget()

    def _clear(self) -> None:
        self._columns = []
        self._poison = []
        self._first_at = None
        WAITING.labels(self._table.name).set(0)

    def _store(self) -> None:
        if self._unanswered is not None:
            self._insert(self._unanswered)
        if not self._columns or not self._columns[0]:
            return
        data: Sequence[Sequence[Any]] = self._columns
        if self._table.replacing:
            self._insert(self._table.insert_of(data))
            return
        keys = self._table.keys(data)
        self._wait_for_strangers()
        is_fresh = self._seen.fresh(keys)
        if not all(is_fresh):
            DUPLICATES.labels(self._table.name).inc(is_fresh.count(False))
            keys = list(compress(keys, is_fresh))
            data = [list(compress(column, is_fresh)) for column in data]
        if keys:
            self._insert(self._table.insert_of(data, keys))

    def _insert(self, insert: Insert) -> None:
        self._unanswered = insert
        self._table.insert(insert)
        self._unanswered = None
        self._seen.add(insert.keys)
        INSERTED.labels(self._table.name).inc(insert.rows)
        BATCHES.labels(self._table.name).inc()
        LAST_EVENT.labels(self._table.name).set(insert.newest_ms)

    def _wait_for_strangers(self) -> None:
        """Only those that run at the first look: other owners' partitions have inserts of their own all the time."""
        if self._strangers is None:
            self._strangers = self._table.running_inserts()
        elif self._strangers:
            self._strangers &= self._table.running_inserts()
        if self._strangers:
            raise StillRunning(f"waiting for {len(self._strangers)} inserts of an earlier process to end")


class Outage:
    """Backoff, and one line in the log when ClickHouse (or the DLQ's Kafka) goes and comes."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._since: float | None = None
        self._pause_s = FIRST_PAUSE_S

    def pause_s(self, error: Exception) -> float:
        """Note a failure; gives how long to pause."""
        if self._since is None:
            self._since = time.monotonic()
            log.warning("can't store in ClickHouse at %s; rows wait in Kafka: %s", self._server, _first_line(error))
        pause_s, self._pause_s = self._pause_s, min(self._pause_s * 2, LONGEST_PAUSE_S)
        return pause_s

    def over(self) -> None:
        """Note a success."""
        if self._since is not None:
            log.warning("storing in ClickHouse at %s again, after %.1f s", self._server, time.monotonic() - self._since)
            self._since, self._pause_s = None, FIRST_PAUSE_S


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
