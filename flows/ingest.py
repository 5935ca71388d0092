"""The exchange's streams into Kafka, byte for byte: the only writer of the raw log.

Run it: `python -m flows.ingest`. One at a time writes, others stand by (`flows.lease`).
"""

import asyncio
import json
import logging
import signal
import time
from contextlib import suppress

import uvloop

from flows import channels
from flows.connectors.kafka_log import KafkaLog
from flows.domain.errors import ExchangeError
from flows.gap_ledger import read_ledger
from flows.lease import Lease
from flows.raw_writer import RawWriter
from flows.read_back import LogEnd, read_back
from flows.streaming import Ingest
from flows.subscriptions import SubscriptionFollower
from flows.venues import VENUES
from flows.venues.binance.failures import pause_before_retry
from flows.venues.binance.rest import RestClient
from infra.health import serve_health
from infra.logs import setup_logging
from infra.settings import Settings
from infra.tls import use_kafka_tls

log = logging.getLogger(__name__)

EVERYTHING = "*"
LISTING_EVERY_S = 3600.0
STANDING_BY = "standing by: another ingest writes the log, or did until a moment ago"


class Process:
    """One process: it writes while it has the lease, else it stands by."""

    def __init__(self, settings: Settings) -> None:
        venue = VENUES[settings.exchange]
        self._bootstrap = settings.bootstrap_servers
        self._ws_url = settings.exchange_ws_url or venue.ws_url
        self._rest_url = settings.exchange_rest_url or venue.rest_url
        self._symbols = settings.symbols
        self._ingest: Ingest | None = None
        self._reason = STANDING_BY

    def unready(self) -> str | None:
        """Why this process does not write, None when it does."""
        return self._ingest.unready() if self._ingest else self._reason

    def streams(self) -> bytes:
        """JSON of what really runs."""
        if self._ingest is None:
            return json.dumps({"connected": False, "aggtrade": [], "miniticker": False, "last_event_ms": None}).encode()
        return self._ingest.streams()

    async def run(self, lease: Lease) -> None:
        """Write whenever the lease is held, until cancelled."""
        while True:
            self._reason = STANDING_BY
            await lease.held.wait()
            self._reason = "reading the log's end"
            writing = asyncio.create_task(self._write())
            gone = asyncio.create_task(lease.gone.wait())
            try:
                await asyncio.wait([writing, gone], return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (writing, gone):
                    task.cancel()
                await asyncio.wait([writing, gone])
                self._ingest = None
            if not writing.cancelled():
                await writing  # raises what ended it
            log.warning("standing by")

    async def _write(self) -> None:
        """Read what the log knows, then go on with it."""
        loop = asyncio.get_running_loop()
        everything = EVERYTHING in self._symbols
        first: asyncio.Future[frozenset[str]] = loop.create_future()

        def subscribed(symbols: frozenset[str]) -> None:
            if self._ingest is not None:
                self._ingest.set_subscribed(symbols)
            elif not first.done():
                first.set_result(symbols)
            else:
                pending.append(symbols)

        pending: list[frozenset[str]] = []
        follower = SubscriptionFollower(self._bootstrap, lambda s: loop.call_soon_threadsafe(subscribed, s))
        kafka = KafkaLog(self._bootstrap)
        follower.start()
        try:
            async with RestClient(self._rest_url) as rest:
                always = await self._listing(rest) if everything else frozenset(self._symbols)
                wanted = await first
                writer = RawWriter(kafka)
                log_end = await asyncio.to_thread(self._read_log, writer, always | wanted)
                ingest = self._ingest = Ingest(kafka, rest, self._ws_url, always, wanted, writer, log_end)
                if pending:
                    ingest.set_subscribed(pending[-1])
                try:
                    async with asyncio.TaskGroup() as tasks:
                        tasks.create_task(ingest.run())
                        if everything:
                            tasks.create_task(self._follow_listing(rest, ingest))
                finally:
                    ingest.close()
        finally:
            follower.close()

    def _read_log(self, writer: RawWriter, wanted: frozenset[str]) -> LogEnd:
        began_s = time.monotonic()
        rows = read_ledger(self._bootstrap)
        writer.ledger.restore(rows)
        end = read_back(self._bootstrap, wanted, writer.ledger.put)
        writer.continuities = end.continuities
        for row in rows:
            if row.state == "open" or row.symbol in end.continuities:
                writer.continuity(row.symbol).restore(row.gap)
        log.info(
            "the log's end names %d symbols, the ledger has %d open holes; read in %.1f s",
            len(end.subscribed), writer.ledger.open, time.monotonic() - began_s,
        )  # fmt: skip
        return end

    async def _listing(self, rest: RestClient) -> frozenset[str]:
        """All symbols that trade. Retries for good."""
        attempt = 0
        while True:
            try:
                return frozenset(await rest.trading_symbols())
            except ExchangeError as error:
                log.warning("listing of symbols: %s", error)
                self._reason = f"listing of symbols: {error}"
                await asyncio.sleep(pause_before_retry(error, attempt))
                attempt += 1

    async def _follow_listing(self, rest: RestClient, ingest: Ingest) -> None:
        while True:
            await asyncio.sleep(LISTING_EVERY_S)
            ingest.set_always(await self._listing(rest))


async def serve(settings: Settings) -> None:
    """Ingest until SIGTERM or SIGINT."""
    process = Process(settings)
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    health = serve_health(settings.host, settings.health_port, process.unready, {"/streams": process.streams})
    lease = Lease(settings.bootstrap_servers)
    running = loop.create_task(process.run(lease))
    stopping = loop.create_task(stop.wait())
    try:
        await asyncio.wait([stopping, running], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        lease.close()
        health.close()


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    settings = Settings()
    setup_logging(settings.log_level)
    use_kafka_tls(settings.tls("kafka"))
    channels.create_topics(settings.bootstrap_servers, channels.all_topics(settings.raw_retention_bytes))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings))


if __name__ == "__main__":
    main()
