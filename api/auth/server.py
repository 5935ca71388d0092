"""The authorization service's process: `python -m api.auth.server`."""

import asyncio
import contextlib
import logging
import signal
import sys

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from sqlalchemy import URL

from api.auth.account_repository import AccountRepository
from api.auth.accounts import AccountService
from api.auth.attempts import Throttle
from api.auth.credentials import PasswordHasher
from api.auth.database import Database
from api.auth.errors import AuthError, DatabaseAway
from api.auth.repository import AuthRepository
from api.auth.rotation import RefreshTokens
from api.auth.service import AuthService, utc_now
from api.auth.servicer import AuthServicer, MalformedMessages
from api.tokens import AccessTokens
from infra.health import serve_health
from infra.logs import setup_logging
from infra.settings import Settings
from infra.tls import Tls, grpc_server_credentials
from protos import auth_pb2, auth_pb2_grpc

SERVICE_NAME = auth_pb2.DESCRIPTOR.services_by_name["AuthService"].full_name
GRACE_S = 3.0
_CHECK_EVERY_S = 1.0
_FORGET_EVERY_S = 3600.0
_OPTIONS = [
    ("grpc.so_reuseport", 0),  # a taken port is an error, not a second listener
    # More than the BFF lets through: a body of 64 KiB with what its head tells of the caller.
    ("grpc.max_receive_message_length", 128 * 1024),
]
_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING

log = logging.getLogger(__name__)


class AuthServer:
    """The gRPC server with health and reflection. `port` 0 takes a free one; `port` tells which after `start()`."""

    def __init__(
        self,
        service: AuthService,
        accounts: AccountService,
        database: Database,
        host: str,
        port: int,
        tls: Tls | None = None,
    ) -> None:
        """`tls`: speak TLS only, and with its `ca` only to clients that have a certificate of it."""
        self._service = service
        self._accounts = accounts
        self._database = database
        self._host = host
        self.port = port
        self._tls = tls
        self.unavailable: str | None = "starting"
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # its stubs lack it
        self._server = grpc.aio.server(interceptors=[MalformedMessages()], options=_OPTIONS)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Listen at once, and serve as soon as the database is there. Raises RuntimeError if the port is taken."""
        servicer = AuthServicer(self._service, self._accounts)
        auth_pb2_grpc.add_AuthServiceServicer_to_server(servicer, self._server)  # type: ignore[no-untyped-call]
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((SERVICE_NAME, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server)
        await self._set_unavailable("starting")
        self.port = self._listen(_address(self._host, self.port))
        if self._host == "127.0.0.1":
            with contextlib.suppress(RuntimeError):  # where there is no IPv6
                self._listen(_address("::1", self.port))
        await self._server.start()
        log.info("listening on %s", _address(self._host, self.port))
        self._tasks = [asyncio.create_task(self._watch_database()), asyncio.create_task(self._forget_expired())]

    def _listen(self, address: str) -> int:
        if self._tls:
            return self._server.add_secure_port(address, grpc_server_credentials(self._tls))
        return self._server.add_insecure_port(address)

    async def stop(self) -> None:
        """Refuse new calls, let running ones end (3 s at most)."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._health.enter_graceful_shutdown()
        await self._server.stop(GRACE_S)

    async def _watch_database(self) -> None:
        while True:
            try:
                await self._database.check()
                await self._set_unavailable(None)
            except DatabaseAway as error:
                await self._set_unavailable(f"PostgreSQL at {self._database.address}: {error}")
            await asyncio.sleep(_CHECK_EVERY_S)

    async def _set_unavailable(self, reason: str | None) -> None:
        if reason != self.unavailable:
            log.log(logging.WARNING if reason else logging.INFO, "%s", reason or "serving")
        self.unavailable = reason
        for name in ("", SERVICE_NAME):
            await self._health.set(name, _NOT_SERVING if reason else _SERVING)

    async def _forget_expired(self) -> None:
        while True:
            await asyncio.sleep(_FORGET_EVERY_S)
            try:
                await self._service.forget_expired()
            except AuthError as error:
                log.warning("expired sessions stay for now: %s", error)


def database_url(settings: Settings) -> URL:
    """The auth database: PostgreSQL's port 5432 + PORT_OFFSET and the name auth_db unless set otherwise."""
    url = URL.create(
        "postgresql+psycopg",
        settings.postgres_user,
        settings.postgres_password.get_secret_value(),
        settings.postgres_host,
        settings.postgres_port or 5432 + settings.port_offset,
        settings.postgres_db or "auth_db",
    )
    tls = settings.tls("postgres")
    return url.update_query_dict(tls.postgres_options()) if tls else url


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises ValueError for an unusable secret, RuntimeError for a taken port."""
    secret = settings.checked_jwt_secret()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    database, hasher = Database(database_url(settings)), PasswordHasher()
    access = AccessTokens(secret, settings.jwt_access_ttl, settings.previous_jwt_secrets)
    throttle = Throttle(database, utc_now)
    refresh = RefreshTokens(secret)
    service = AuthService(AuthRepository(database), throttle, hasher, access, refresh, settings.jwt_refresh_ttl)
    accounts = AccountService(AccountRepository(database), throttle, hasher, access)
    port = 50051 + settings.port_offset if settings.grpc_port is None else settings.grpc_port
    server = AuthServer(service, accounts, database, settings.host, port, settings.grpc_tls(server=True))
    health_server = serve_health(settings.host, settings.health_port, lambda: server.unavailable)
    try:
        await server.start()
        await stopping.wait()
        log.info("stopping")
        await server.stop()
    finally:
        health_server.close()
        hasher.close()
        await database.close()


def main() -> None:
    """Entry point; a configuration or port that can't be used is one line and exit 1."""
    try:
        settings = Settings()
        setup_logging(settings.log_level)
        asyncio.run(run(settings))
    except (ValueError, RuntimeError, OSError) as error:
        sys.exit(f"authorization: {error}")


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    main()
