"""What ingest puts into the raw log, record by record, and what it knows of the log's ids while it does.

Live trade: the exchange's object, byte for byte; Kafka timestamp E, headers `received_ms`, `source=live`.
Backfilled trade: `{"e":"aggTrade","s":"BTCUSDT",` and the REST row's fields, no E; Kafka timestamp T,
`source=backfill`.
Heartbeat `{"e":"heartbeat","E":…}` without a key, and `{"e":"subscription","s":"BTCUSDT","on":true,"E":…}`: no source.
"""

import json
import logging
import time
from collections.abc import Callable

from prometheus_client import Counter

from flows import channels
from flows.connectors.kafka_log import KafkaLog
from flows.domain.gaps import Continuity
from flows.domain.partition import MAX_AHEAD_MS
from flows.gap_ledger import GapLedger
from flows.partitioning import partition_of
from flows.venues.binance.protocol import MAX_TIME_MS, Payload
from flows.venues.binance.rest import Row

log = logging.getLogger(__name__)

LARGEST_BAD_FRAME = 900_000  # bytes: what Kafka takes with headers
_LIVE, _BACKFILL = ("source", b"live"), ("source", b"backfill")

PAYLOADS = Counter("ingest_payloads", "Objects of the exchange written to Kafka", ["event_type"])
BACKFILLED = Counter("ingest_backfilled", "Trades fetched over REST and written to Kafka")


class RawWriter:
    """The only hand that writes. `began` is called when the first trade of a new subscription is in the log."""

    def __init__(self, kafka: KafkaLog, continuities: dict[str, Continuity] | None = None) -> None:
        self.partitions = channels.raw_aggtrade(1).partitions
        self.ledger = GapLedger(kafka, self.partitions)
        self.continuities = continuities if continuities is not None else {}
        self.fresh: set[str] = set()  # subscribed, and no trade seen yet
        self.began: Callable[[Payload], None] = lambda _payload: None
        self.last_event_ms: int | None = None
        self._kafka = kafka
        self._trades = PAYLOADS.labels("aggTrade")
        self._tickers = PAYLOADS.labels("24hrMiniTicker")

    def continuity(self, symbol: str) -> Continuity:
        """What is known of a symbol's ids."""
        found = self.continuities.get(symbol)
        if found is None:
            found = self.continuities[symbol] = Continuity(symbol, self.ledger.put)
        return found

    @property
    def backlog(self) -> int:
        """Records that Kafka has not confirmed."""
        return self._kafka.backlog

    def trade(self, payload: Payload, received_ms: int) -> None:
        """A live trade."""
        symbol = payload.symbol
        if symbol in self.fresh and payload.agg_id is not None:
            self.begin(payload)
            self._live(channels.RAW_AGGTRADE, self.partitions, payload, received_ms)
            self._saw(payload, received_ms)
            self.began(payload)
            return
        self._live(channels.RAW_AGGTRADE, self.partitions, payload, received_ms)
        self._saw(payload, received_ms)

    def begin(self, payload: Payload) -> None:
        """Say in the log that a symbol's ids are owed from this trade on."""
        self.fresh.discard(payload.symbol)
        self.continuity(payload.symbol).end()  # frames may have come after the last subscription's end
        self.subscription(payload.symbol, True, payload.event_time)

    def _saw(self, payload: Payload, received_ms: int) -> None:
        self._trades.inc()
        if payload.agg_id is None or payload.event_time > received_ms + MAX_AHEAD_MS:
            return  # poison to the core
        continuity = self.continuities.get(payload.symbol) or self.continuity(payload.symbol)
        continuity.saw(payload.agg_id, payload.first_trade, payload.last_trade, payload.trade_time, time.monotonic())
        self.last_event_ms = payload.event_time

    def ticker(self, payload: Payload, received_ms: int) -> None:
        """A miniticker."""
        self._live(channels.RAW_MINITICKER.name, channels.RAW_MINITICKER.partitions, payload, received_ms)
        self._tickers.inc()
        self.last_event_ms = payload.event_time

    def _live(self, topic: str, partitions: int, payload: Payload, received_ms: int) -> None:
        event_time = payload.event_time
        self._kafka.append(
            topic,
            partition_of(payload.symbol, partitions),
            payload.data,
            key=payload.symbol,
            timestamp=event_time if 0 < event_time < MAX_TIME_MS else received_ms,
            headers=[("received_ms", b"%d" % received_ms), _LIVE],
        )

    def backfilled(self, symbol: str, row: Row, data: bytes) -> None:
        """A trade that REST had: `data` is its row's object."""
        value = b'{"e":"aggTrade","s":' + json.dumps(symbol, ensure_ascii=False).encode() + b"," + data.lstrip()[1:]
        self._kafka.append(
            channels.RAW_AGGTRADE,
            partition_of(symbol, self.partitions),
            value,
            key=symbol,
            timestamp=row.time_ms,
            headers=[("received_ms", b"%d" % now_ms()), _BACKFILL],
        )
        BACKFILLED.inc()
        self.continuity(symbol).saw(row.a, row.first_trade, row.last_trade, row.time_ms, time.monotonic())

    def heartbeat(self, partition: int, event_time: int) -> None:
        """A promise that the trades of a partition up to E, less the allowed lateness, are in the log."""
        value = b'{"e":"heartbeat","E":%d}' % event_time
        self._own(partition, value, None, event_time)

    def subscription(self, symbol: str, on: bool, event_time: int) -> None:
        """Continuity of a symbol's ids is owed from here on, or no longer."""
        value = json.dumps(
            {"e": "subscription", "s": symbol, "on": on, "E": event_time}, separators=(",", ":"), ensure_ascii=False
        )
        self._own(partition_of(symbol, self.partitions), value.encode(), symbol, event_time)

    def _own(self, partition: int, value: bytes, key: str | None, event_time: int) -> None:
        headers = [("received_ms", b"%d" % now_ms())]
        self._kafka.append(channels.RAW_AGGTRADE, partition, value, key=key, timestamp=event_time, headers=headers)

    def bad_frame(self, frame: bytes, reason: str) -> None:
        """What is not the exchange's protocol, to the DLQ."""
        log.warning("bad frame to the DLQ: %s: %r", reason, frame[:200])
        headers = [("source_topic", b"exchange"), ("reason", reason.encode())]
        topic = f"{channels.RAW_AGGTRADE}.dlq"
        self._kafka.append(topic, 0, frame[:LARGEST_BAD_FRAME], key=None, timestamp=now_ms(), headers=headers)


def now_ms() -> int:
    """Wall-clock ms since the epoch."""
    return time.time_ns() // 1_000_000
