"""The exchange's streams into Kafka, byte for byte: the only writer of the raw log.

Run it: `python -m flows.ingest`.
"""

import asyncio
import json
import logging
import signal
import time
from collections.abc import Callable

from prometheus_client import Counter, Gauge

from flows import channels
from flows.connectors.kafka_log import HIGH_WATER, LOW_WATER, KafkaLog
from flows.domain.errors import ExchangeError
from flows.lane import Lane
from flows.partitioning import partition_of
from flows.subscriptions import SubscriptionFollower
from flows.venues import VENUES
from flows.venues.binance.client import pause_before_retry, trading_symbols
from flows.venues.binance.protocol import MINI_TICKERS, Payload, agg_trade_stream
from infra.health import serve_health
from infra.logs import setup_logging
from infra.settings import Settings

log = logging.getLogger(__name__)

TRADE_LANES = 4  # a dead connection stills the heartbeats of its own partitions only
HEARTBEAT_EVERY_S = 0.1
EVERYTHING = "*"
LISTING_EVERY_S = 3600.0
STOP_WITHIN_S = 8.0
LARGEST_BAD_FRAME = 900_000  # bytes: what Kafka takes with headers
MAX_TIME_MS = 1 << 53  # beyond it a time is poison, and no timestamp for Kafka

PAYLOADS = Counter("ingest_payloads", "Objects of the exchange written to Kafka", ["event_type"])
DELAY = Gauge("ingest_delay_ms", "Receive time minus event time of the newest payload", ["lane"])
BACKLOG = Gauge("ingest_backlog", "Records that Kafka has not confirmed yet")


class Ingest:
    """Lanes of aggTrades by Kafka partition, one lane of whole-market minitickers, and the heartbeats."""

    def __init__(self, kafka: KafkaLog, ws_url: str, always: frozenset[str]) -> None:
        self._kafka = kafka
        self._always = always
        self._subscribed: frozenset[str] = frozenset()
        self._known: frozenset[str] | None = None  # what was wanted at the start: continued, not begun
        self._announce: set[str] = set()  # subscribed while running, and no trade seen yet
        self._partitions = channels.raw_aggtrade(1).partitions
        self._trade_lanes = [Lane(f"trades-{n}", ws_url, self._trade, self._bad_frame) for n in range(TRADE_LANES)]
        self._ticker_lane = Lane("minitickers", ws_url, self._ticker, self._bad_frame)
        self._ticker_lane.want(frozenset({MINI_TICKERS}))
        self._last_event_ms: int | None = None

    @property
    def lanes(self) -> list[Lane]:
        """All connections."""
        return [*self._trade_lanes, self._ticker_lane]

    def unready(self) -> str | None:
        """Why ingest does not do its work, None when it does."""
        return next((f"{lane.name}: {lane.reason}" for lane in self.lanes if lane.reason), None)

    def streams(self) -> bytes:
        """JSON of what really runs."""
        active = {stream for lane in self._trade_lanes for stream in lane.active}
        return json.dumps(
            {
                "connected": all(lane.connected for lane in self.lanes),
                "aggtrade": sorted(symbol for symbol in self._wanted if agg_trade_stream(symbol) in active),
                "miniticker": MINI_TICKERS in self._ticker_lane.active,
                "last_event_ms": self._last_event_ms,
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
        if self._known is not None:
            self._announce |= wanted - self._known
            for symbol in self._known - wanted:
                self._announce.discard(symbol)
                self._subscription(self._lane_of(symbol), symbol, False)
        self._known = wanted
        for lane in self._trade_lanes:
            lane.want(frozenset(agg_trade_stream(s) for s in wanted if self._lane_of(s) is lane))

    def _lane_of(self, symbol: str) -> Lane:
        return self._trade_lanes[partition_of(symbol, self._partitions) % TRADE_LANES]

    async def run(self) -> None:
        """Keep everything going until cancelled. Raises DeliveryFailed when Kafka lost a record."""
        async with asyncio.TaskGroup() as tasks:
            for lane in self.lanes:
                tasks.create_task(lane.run())
            tasks.create_task(self._beat())

    async def _beat(self) -> None:
        """Heartbeats into every partition; and no reading while Kafka does not keep up."""
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
            if paused:
                for lane in self.lanes:
                    lane.pause(True)  # connections opened since
            else:
                self._heartbeats()

    def _heartbeats(self) -> None:
        headers = [("received_ms", str(_now_ms()).encode())]
        for number, lane in enumerate(self._trade_lanes):
            event_time = lane.heartbeat_ms()
            if event_time is None:
                continue
            value = b'{"e":"heartbeat","E":%d}' % event_time
            for partition in range(number, self._partitions, TRADE_LANES):
                self._kafka.append(
                    channels.RAW_AGGTRADE, partition, value, key=None, timestamp=event_time, headers=headers
                )

    def _trade(self, lane: Lane, payload: Payload) -> None:
        if payload.event_type != "aggTrade" or not payload.symbol:
            self._bad_frame(payload.data, f"unexpected {payload.event_type!r} on a trade lane")
            return
        if payload.symbol in self._announce:
            self._announce.discard(payload.symbol)
            self._subscription(lane, payload.symbol, True, payload.event_time)
        self._append(channels.RAW_AGGTRADE, partition_of(payload.symbol, self._partitions), payload, lane)

    def _ticker(self, lane: Lane, payload: Payload) -> None:
        if payload.event_type != "24hrMiniTicker" or not payload.symbol:
            self._bad_frame(payload.data, f"unexpected {payload.event_type!r} on the miniticker lane")
            return
        topic = channels.RAW_MINITICKER
        self._append(topic.name, partition_of(payload.symbol, topic.partitions), payload, lane)

    def _append(self, topic: str, partition: int, payload: Payload, lane: Lane) -> None:
        received_ms = _now_ms()
        self._kafka.append(
            topic,
            partition,
            payload.data,
            key=payload.symbol,
            timestamp=payload.event_time if 0 < payload.event_time < MAX_TIME_MS else received_ms,
            headers=[("received_ms", str(received_ms).encode()), ("source", b"live")],
        )
        PAYLOADS.labels(payload.event_type).inc()
        DELAY.labels(lane.name).set(received_ms - payload.event_time)
        self._last_event_ms = payload.event_time

    def _subscription(self, lane: Lane, symbol: str, on: bool, event_time: int | None = None) -> None:
        """Tell the log that continuity of a symbol's ids is owed from here on, or no longer."""
        event_time = event_time or lane.heartbeat_ms()
        if event_time is None:
            return  # never connected: nothing of this symbol is in the log since the start
        value = json.dumps({"e": "subscription", "s": symbol, "on": on, "E": event_time}, separators=(",", ":"))
        headers = [("received_ms", str(_now_ms()).encode())]
        partition = partition_of(symbol, self._partitions)
        self._kafka.append(
            channels.RAW_AGGTRADE, partition, value.encode(), key=symbol, timestamp=event_time, headers=headers
        )

    def _bad_frame(self, frame: bytes, reason: str) -> None:
        log.warning("bad frame to the DLQ: %s: %r", reason, frame[:200])
        headers = [("source_topic", b"exchange"), ("reason", reason.encode())]
        topic = f"{channels.RAW_AGGTRADE}.dlq"
        self._kafka.append(topic, 0, frame[:LARGEST_BAD_FRAME], key=None, timestamp=_now_ms(), headers=headers)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


async def follow_listing(rest_url: str, changed: Callable[[frozenset[str]], None]) -> None:
    """Tell about all symbols that trade, now and whenever the listing changes."""
    attempt = 0
    while True:
        try:
            changed(frozenset(await trading_symbols(rest_url)))
            attempt = 0
            await asyncio.sleep(LISTING_EVERY_S)
        except ExchangeError as error:
            log.warning("listing of symbols: %s", error)
            await asyncio.sleep(pause_before_retry(error, attempt))
            attempt += 1


async def serve(settings: Settings) -> None:
    """Ingest until SIGTERM or SIGINT."""
    venue = VENUES[settings.exchange]
    ws_url = settings.exchange_ws_url or venue.ws_url
    rest_url = settings.exchange_rest_url or venue.rest_url
    kafka = KafkaLog(settings.bootstrap_servers)
    everything = EVERYTHING in settings.symbols
    ingest = Ingest(kafka, ws_url, frozenset() if everything else frozenset(settings.symbols))
    loop = asyncio.get_running_loop()
    follower = SubscriptionFollower(
        settings.bootstrap_servers, lambda symbols: loop.call_soon_threadsafe(ingest.set_subscribed, symbols)
    )
    health = serve_health(settings.host, settings.health_port, ingest.unready, {"/streams": ingest.streams})
    running = [loop.create_task(ingest.run())]
    if everything:
        running.append(loop.create_task(follow_listing(rest_url, ingest.set_always)))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    follower.start()
    stopping = loop.create_task(stop.wait())
    try:
        done, _ = await asyncio.wait([stopping, *running], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopping}:
            await task  # raises what ended it
    finally:
        follower.close()
        for task in (stopping, *running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        kafka.close(STOP_WITHIN_S)
        health.close()


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = Settings()
    setup_logging(settings.log_level)
    channels.create_topics(settings.bootstrap_servers, channels.all_topics(settings.raw_retention_bytes))
    asyncio.run(serve(settings))


if __name__ == "__main__":
    main()
