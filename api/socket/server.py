"""The socket service's process: `python -m api.socket.server`."""

import asyncio
import contextlib
import logging
import signal
import sys
from typing import Any

import uvloop
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from grpc_health.v1 import health_pb2
from grpclib.config import Configuration

from api.listening import listen
from api.socket.grpc_shell import HEALTH, GrpcServer, Health, Reflection
from api.socket.leases import Leases
from api.socket.raw_log import RawLog
from api.socket.service import SocketService
from api.socket.servicer import SERVICE_NAME, SocketServicer
from api.symbols import SymbolDirectory, rest_url
from flows.channels import RAW_MINITICKER, Topic, create_topics, raw_aggtrade
from infra.health import serve_health
from infra.logs import setup_logging
from infra.settings import Settings, split_address
from infra.tls import Tls, kafka_security, use_kafka_tls

DEFAULT_PORT = 50052
GRACE_S = 3.0
_CHECK_EVERY_S = 1.0
_PROBE_TIMEOUT_S = 1.5
_AGGREGATOR_PORT = 8088
# A client that has vanished without a word holds its lease no longer than this.
_KEEPALIVE = Configuration(
    _keepalive_time=30.0, _keepalive_timeout=20.0,
    _http2_max_pings_without_data=0, _http2_min_sent_ping_interval_without_data=25,
)  # fmt: skip

log = logging.getLogger(__name__)


class SocketServer:
    """The gRPC server with health and reflection. `port` 0 takes a free one; `port` tells which after `start()`."""

    def __init__(
        self,
        bootstrap_servers: str,
        topics: tuple[Topic, Topic],
        symbols: SymbolDirectory,
        leases: Leases,
        tls: Tls | None = None,
    ) -> None:
        """`tls`: speak TLS only, and with its `ca` only to clients that have a certificate of it."""
        self.unavailable: str | None = "starting"
        self.port = 0
        self._bootstrap_servers, self._topics = bootstrap_servers, topics
        self._logs = [RawLog(bootstrap_servers, topic) for topic in topics]
        self._symbols, self._leases = symbols, leases
        self._service = SocketService(symbols, leases)
        self._health = Health()
        self._handlers: list[Any] = [
            SocketServicer(self._service, *self._logs),
            self._health,
            Reflection(SERVICE_NAME, HEALTH),
        ]
        self._servers: list[GrpcServer] = []
        self._ssl = tls.server_context() if tls else None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self, host: str, port: int) -> None:
        """Listen at once, and serve as soon as Kafka is there. Raises OSError if the port is taken."""
        await self._set_unavailable("starting")
        for sock in listen(host, port):
            self.port = sock.getsockname()[1]
            self._servers.append(GrpcServer(self._handlers, _KEEPALIVE))
            await self._servers[-1].start(sock=sock, ssl=self._ssl)
        log.info("listening on %s:%d", host, self.port)
        self._tasks = [asyncio.create_task(self._watch_kafka()), asyncio.create_task(self._leases.run())]

    async def stop(self) -> None:
        """Refuse new calls, end the streams with UNAVAILABLE, give the leases back."""
        await self._health.servicer.enter_graceful_shutdown()
        self._service.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                await self._service.ended()
        await asyncio.gather(*(server.close_gracefully(1.0) for server in self._servers))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._leases.close()
        for raw in self._logs:
            await raw.close()
        await self._symbols.close()

    async def _watch_kafka(self) -> None:
        admin: AdminClient | None = None
        created = False
        while True:
            try:
                admin = admin or AdminClient(
                    {**kafka_security(), "bootstrap.servers": self._bootstrap_servers, "log_level": 0}
                )
                await asyncio.to_thread(admin.list_topics, timeout=_PROBE_TIMEOUT_S)
                if not created:
                    await asyncio.to_thread(create_topics, self._bootstrap_servers, self._topics)
                    created = True
                await self._set_unavailable(None)
            except KafkaException as error:
                admin = None  # after a broker that hung for a while, librdkafka's may never connect again
                await self._set_unavailable(f"Kafka at {self._bootstrap_servers}: {error.args[0].str()}")
            await asyncio.sleep(_CHECK_EVERY_S)

    async def _set_unavailable(self, reason: str | None) -> None:
        if reason != self.unavailable:
            log.log(logging.WARNING if reason else logging.INFO, "%s", reason or "serving")
        self.unavailable = reason
        status = health_pb2.HealthCheckResponse
        for name in ("", SERVICE_NAME):
            await self._health.servicer.set(name, status.NOT_SERVING if reason else status.SERVING)


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises OSError for a taken port."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    host, port = split_address(settings.aggregator_addr, _AGGREGATOR_PORT)
    leases = Leases(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}")
    topics = raw_aggtrade(settings.raw_retention_bytes), RAW_MINITICKER
    symbols = SymbolDirectory(rest_url(settings))
    server = SocketServer(settings.bootstrap_servers, topics, symbols, leases, settings.grpc_tls(server=True))
    health_server = serve_health(settings.host, settings.health_port, lambda: server.unavailable)
    try:
        await server.start(*settings.listen_socket(DEFAULT_PORT))
        await stopping.wait()
        log.info("stopping")
        await server.stop()
    finally:
        health_server.close()


def main() -> None:
    """Entry point; a configuration or port that can't be used is one line and exit 1."""
    try:
        settings = Settings()
        setup_logging(settings.log_level)
        use_kafka_tls(settings.tls("kafka"))
        uvloop.run(run(settings))
    except (ValueError, OSError) as error:
        sys.exit(f"socket: {error}")


if __name__ == "__main__":
    main()
