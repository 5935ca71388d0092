"""What a partition of an imported topic holds already, read alongside an import: so that nothing is written twice."""

from collections import deque

from confluent_kafka import Message

from flows.connectors.partition_reader import PartitionReader
from flows.domain.errors import InvalidRecord
from flows.domain.intervals import IdIntervals
from flows.domain.market import SECOND_MS
from flows.records import decode_trades

AHEAD_MS = 3 * SECOND_MS  # of the import's own place: several imports may lie within each other, out of order a little


class KnownRecords:
    """Trades by (symbol, a) and heartbeats by E, from the import's first moment to its present one, and no further."""

    def __init__(self, reader: PartitionReader) -> None:
        self._reader = reader
        self._queue: deque[tuple[int, bytes | None]] = deque()
        self._read_ms = 0  # of what was taken so far, the newest
        self._ids: dict[str, IdIntervals] = {}
        self._beats: IdIntervals | None = None  # in whole seconds

    def has_trade(self, symbol: str, agg_id: int, now_ms: int) -> bool:
        """Whether this trade is there, and from now on it is."""
        self._advance(now_ms)
        return not self._add_trade(symbol, agg_id)

    def has_heartbeat(self, event_time: int) -> bool:
        """The same of a heartbeat at a whole second."""
        self._advance(event_time)
        return not self._add_heartbeat(event_time)

    def _add_trade(self, symbol: str, agg_id: int) -> bool:
        ids = self._ids.get(symbol)
        if ids is None:
            self._ids[symbol] = IdIntervals(agg_id)
            return True
        return ids.add(agg_id)

    def _add_heartbeat(self, event_time: int) -> bool:
        if self._beats is None:
            self._beats = IdIntervals(event_time // SECOND_MS)
            return True
        return self._beats.add(event_time // SECOND_MS)

    def _advance(self, now_ms: int) -> None:
        while self._read_ms <= now_ms + AHEAD_MS:
            if not self._queue:
                if self._reader.ended:
                    return
                self._fill(self._reader.read())
                continue
            time_ms, value = self._queue.popleft()
            self._read_ms = max(self._read_ms, time_ms)
            (record,) = decode_trades([value])
            if isinstance(record, InvalidRecord):
                continue
            if record.event_type == "aggTrade" and record.symbol and record.agg_id is not None:
                self._add_trade(record.symbol, record.agg_id)
            elif record.event_type == "heartbeat" and record.event_time % SECOND_MS == 0:
                self._add_heartbeat(record.event_time)

    def _fill(self, messages: list[Message]) -> None:
        self._queue.extend((message.timestamp()[1], message.value()) for message in messages)

    def close(self) -> None:
        """Leave Kafka."""
        self._reader.close()
