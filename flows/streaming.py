"""Everything that runs while this process writes the log: connections by partition, heartbeats, backfill, ledger."""

import asyncio
import json
import logging
import time
from functools import partial

from prometheus_client import Gauge

from flows.backfill import Backfill
from flows.connectors.kafka_log import HIGH_WATER, LOW_WATER, KafkaLog
from flows.feed import TickerFeed, TradeFeed
from flows.lane import Lane
from flows.partitioning import partition_of
from flows.raw_writer import RawWriter
from flows.read_back import LogEnd
from flows.venues.binance.budget import connection_attempts
from flows.venues.binance.protocol import MINI_TICKERS, agg_trade_stream
from flows.venues.binance.rest import RestClient

log = logging.getLogger(__name__)

TRADE_LANES = 4  # a dead connection stills the heartbeats of its own partitions only; 4 × 1024 symbols fit
HEARTBEAT_EVERY_S = 0.1
STOP_WITHIN_S = 8.0

BACKLOG = Gauge("ingest_backlog", "Records that Kafka has not confirmed yet")
OPEN_GAPS = Gauge("ingest_open_gaps", "Rows of the gap ledger that are open")


class Ingest:
    """Lanes of aggTrades by Kafka partition, one lane of whole-market minitickers, and the heartbeats.

    `wanted` are the symbols to begin with; what the log's end knows of them goes on, the others begin.
    """

    def __init__(
        self,
        kafka: KafkaLog,
        rest: RestClient,
        ws_url: str,
        always: frozenset[str],
        subscribed: frozenset[str] = frozenset(),
        writer: RawWriter | None = None,
        log_end: LogEnd | None = None,
    ) -> None:
        end = log_end or LogEnd()
        self._kafka = kafka
        self._writer = writer or RawWriter(kafka)
        self._always, self._subscribed = always, subscribed
        self._known = self._wanted
        partitions = self._writer.partitions
        self._writer.fresh = set(self._known - end.subscribed)
        unknown = {s: since for s in self._writer.fresh - end.ended if (since := end.since(s, partitions))}
        self._backfill = Backfill(rest, self._writer, unknown)
        attempts = connection_attempts()
        self._trade_lanes: list[Lane] = []
        self._feeds: list[TradeFeed] = []
        for number in range(TRADE_LANES):
            name = f"trades-{number}"
            feed = TradeFeed(name, self._writer, self._backfill, partial(self._symbols_of, number))
            self._feeds.append(feed)
            self._trade_lanes.append(Lane(name, ws_url, feed, self._writer.bad_frame, attempts))
        tickers = TickerFeed("minitickers", self._writer)
        self._ticker_lane = Lane("minitickers", ws_url, tickers, self._writer.bad_frame, attempts)
        self._ticker_lane.want(frozenset({MINI_TICKERS}))
        # Nobody wanted them any more while no ingest ran.
        self._ended = {s: end.newest(s, partitions) for s in end.subscribed - self._known}
        self._distribute()

    @property
    def lanes(self) -> list[Lane]:
        """All connections."""
        return [*self._trade_lanes, self._ticker_lane]

    def unready(self) -> str | None:
        """Why ingest does not do its work, None when it does."""
        if reason := next((f"{lane.name}: {lane.reason}" for lane in self.lanes if lane.reason), None):
            return reason
        return next((f"{feed.name}: catching up with the exchange" for feed in self._feeds if feed.holding), None)

    def streams(self) -> bytes:
        """JSON of what really runs."""
        active = {stream for lane in self._trade_lanes for stream in lane.active}
        return json.dumps(
            {
                "connected": all(lane.connected for lane in self.lanes),
                "aggtrade": sorted(symbol for symbol in self._wanted if agg_trade_stream(symbol) in active),
                "miniticker": MINI_TICKERS in self._ticker_lane.active,
                "last_event_ms": self._writer.last_event_ms,
                "open_gaps": self._writer.ledger.open,
            }
        ).encode()

    @property
    def _wanted(self) -> frozenset[str]:
        return self._subscribed | self._always

    def set_always(self, symbols: frozenset[str]) -> None:
        """The symbols streamed whoever subscribes."""
        self._always = symbols
        self._want()

    def set_subscribed(self, symbols: frozenset[str]) -> None:
        """The symbols that have a subscriber."""
        self._subscribed = symbols
        self._want()

    def _want(self) -> None:
        wanted = self._wanted
        self._writer.fresh |= wanted - self._known
        for symbol in self._known - wanted:
            self._end(symbol, self._lane_of(symbol).clock.event_time_ms(time.monotonic(), False))
        self._known = wanted
        self._distribute()

    def _end(self, symbol: str, event_time: int | None) -> None:
        """Nothing of a symbol is owed from here on."""
        self._writer.fresh.discard(symbol)
        self._writer.continuity(symbol).end()
        if event_time is not None:  # else never connected: nothing of this symbol is in the log since the start
            self._writer.subscription(symbol, False, event_time)

    def _distribute(self) -> None:
        for number, lane in enumerate(self._trade_lanes):
            lane.want(frozenset(agg_trade_stream(symbol) for symbol in self._symbols_of(number)))

    def _symbols_of(self, number: int) -> list[str]:
        partitions = self._writer.partitions
        return [s for s in self._known if partition_of(s, partitions) % TRADE_LANES == number]

    def _lane_of(self, symbol: str) -> Lane:
        return self._trade_lanes[partition_of(symbol, self._writer.partitions) % TRADE_LANES]

    async def run(self) -> None:
        """Keep everything going until cancelled. Raises DeliveryFailed when Kafka lost a record."""
        for symbol, event_time in self._ended.items():
            self._end(symbol, event_time)
        async with asyncio.TaskGroup() as tasks:
            self._backfill.run_in(tasks)
            for feed in self._feeds:
                feed.run_in(tasks)
            self._backfill.mend_all()
            for lane in self.lanes:
                tasks.create_task(lane.run())
            tasks.create_task(self._beat())

    async def _beat(self) -> None:
        """Heartbeats into every partition, and the ledger; no reading while Kafka does not keep up."""
        paused = False
        while True:
            await asyncio.sleep(HEARTBEAT_EVERY_S)
            self._kafka.check()
            backlog = self._kafka.backlog
            BACKLOG.set(backlog)
            if paused != (paused := backlog > (LOW_WATER if paused else HIGH_WATER)):
                log.warning(
                    "%s the exchange: %d records wait for Kafka", "not reading" if paused else "reading", backlog
                )
                for lane in self.lanes:
                    lane.pause(paused)
            self._backfill.expire(time.monotonic())
            self._writer.ledger.write_confirmed()
            OPEN_GAPS.set(self._writer.ledger.open)
            if paused:
                for lane in self.lanes:
                    lane.pause(True)  # connections opened since
            else:
                self._heartbeats()

    def _heartbeats(self) -> None:
        for number, lane in enumerate(self._trade_lanes):
            event_time = lane.heartbeat_ms()
            if event_time is None:
                continue
            lane.feed.tick(event_time)
            for partition in range(number, self._writer.partitions, TRADE_LANES):
                self._writer.heartbeat(partition, event_time)

    def close(self) -> None:
        """Write what is still to be written, within STOP_WITHIN_S. Raises DeliveryFailed."""
        self._kafka.flush(STOP_WITHIN_S / 2)
        self._writer.ledger.write_confirmed()
        self._kafka.close(STOP_WITHIN_S / 2)
