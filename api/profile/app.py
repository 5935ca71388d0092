"""The profile service's process (the BFF): `python -m api.profile.app`."""

import asyncio
import gc
import logging
import sys
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from sqlalchemy import URL

from api.database import Database, DatabaseAway
from api.http import API_ONLY, SecurityHeaders, health_router, install_problems, serve
from api.profile.account_client import AccountClient
from api.profile.account_endpoints import account_router
from api.profile.admission import Admission
from api.profile.aggregator_client import AggregatorClient, Outbox
from api.profile.auth_client import AuthClient
from api.profile.deletion import Deletions
from api.profile.endpoints import auth_router, profile_router, refresh_cookie
from api.profile.errors import STATUSES, NotAuthenticated
from api.profile.hub import Hub
from api.profile.live_protocol import LiveProtocol
from api.profile.recorded import RecordedSeconds
from api.profile.redis_feed import RedisFeed
from api.profile.repository import ProfileRepository
from api.profile.security import Origins, bearer, not_authenticated, owner
from api.profile.service import ProfileService
from api.profile.stage import Stage
from api.profile.websocket import MAX_MESSAGE_BYTES, Connections, websocket_router
from api.symbols import SymbolDirectory, rest_url
from api.tokens import AccessTokens
from api.workers import end_with_parent, serve_many
from infra.logs import setup_logging
from infra.settings import Settings, split_address

DEFAULT_PORT = 8080
WORKER_READY_WITHIN_S = 5.0
COLLECT_EVERY = 10_000  # containers made and not ended
# A client's push is small and changes each second: compression would cost more than it saves.
UVICORN: dict[str, Any] = {
    "ws": LiveProtocol,
    "ws_max_size": MAX_MESSAGE_BYTES,
    "ws_per_message_deflate": False,
    "log_level": "warning",
}

log = logging.getLogger(__name__)


class Bff:
    """Everything the service is made of, wired; `start` it inside the event loop."""

    def __init__(self, settings: Settings) -> None:
        """Raises ValueError for an unusable secret."""
        self.tokens = AccessTokens(
            settings.checked_jwt_secret(), settings.jwt_access_ttl, settings.previous_jwt_secrets
        )
        self.database = Database(database_url(settings), "profile")
        repository = ProfileRepository(self.database)
        self.auth = AuthClient(_address(settings.auth_service_addr, 50051), settings.grpc_tls(server=False))
        accounts = AccountClient(self.auth)
        self.deletions = Deletions(self.database, accounts)
        self.aggregator = AggregatorClient(f"http://{_address(settings.aggregator_addr, 8088)}")
        self.symbols = SymbolDirectory(rest_url(settings))
        self.outbox = Outbox(repository, self.aggregator)
        self.hub = Hub(repository.held, settings.push_window, settings.stale_after)
        redis = split_address(settings.redis_addr, 6379)
        self.feed = self.hub.feed = RedisFeed(
            *redis, self.hub.price_changed, self.hub.portfolio_changed, settings.tls("redis")
        )
        self.stage = Stage(
            RecordedSeconds(settings),
            settings.ws_replays_per_user,
            settings.ws_replays,
            settings.stale_after,
            settings.replay_settle,
        )
        self.service = ProfileService(repository, self.auth, accounts, self.deletions, self.symbols, self._changed)
        self._tasks: set[asyncio.Task[None]] = set()
        self._broken: str | None = None

    def start(self) -> None:
        """Begin the work in the background."""
        for work in (self._tell_aggregator(), self.hub.run(), self.feed.run(), self.deletions.run()):
            self._background(work)

    async def stop(self) -> None:
        """End it, and close all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for part in (self.hub, self.feed, self.auth, self.aggregator, self.symbols, self.stage, self.database):
            await part.close()

    async def ready_within(self, seconds: float) -> None:
        """Returns when requests can be served, or after so long."""
        try:
            async with asyncio.timeout(seconds):
                while await self.unavailable():  # noqa: ASYNC110 - it is the database that is waited for
                    await asyncio.sleep(0.1)
        except TimeoutError:
            log.warning("serving before the database answers")

    async def unavailable(self) -> str | None:
        """Why requests can't be served, or None; without Redis prices only turn stale."""
        try:
            await self.database.check()
        except DatabaseAway as error:
            return f"PostgreSQL at {self.database.address}: {error}"
        return self._broken

    async def _tell_aggregator(self) -> None:
        while await self.unavailable():  # noqa: ASYNC110 - it is the database that is waited for
            await asyncio.sleep(1)
        await self.outbox.run()

    def _changed(self, user_id: uuid.UUID) -> None:
        self.hub.portfolio_changed(user_id)
        self.outbox.wake()
        self._background(self.feed.announce(user_id))

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.critical("work in the background ended", exc_info=error)
            self._broken = f"work in the background ended: {error}"


def create_app(settings: Settings, *, ready_within_s: float = 0.0) -> FastAPI:
    """The application; it connects to everything when it starts, and waits so long for that before it serves.

    Raises ValueError for an unusable secret.
    """
    bff = Bff(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        bff.start()
        _tune_collector()
        if ready_within_s:
            await bff.ready_within(ready_within_s)
        yield
        await bff.stop()

    app = FastAPI(title="Crypto Asset Tracker", lifespan=lifespan)
    install_problems(app, STATUSES)
    app.add_exception_handler(NotAuthenticated, not_authenticated)
    app.add_middleware(SecurityHeaders, more={"/api/": API_ONLY}, https=settings.env != "local")
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.allowed_origins,
            # A page of another port or subdomain is same-site, and would have the cookie of whoever looks at it.
            allow_credentials="*" not in settings.allowed_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
        )
    app.include_router(health_router(bff.unavailable))
    cookie = refresh_cookie(secure=settings.env != "local")
    app.include_router(auth_router(bff.service, cookie))
    app.include_router(account_router(bff.service, owner(bff.tokens), cookie))
    app.include_router(profile_router(bff.service, bearer(bff.tokens)))
    admission = Admission(
        settings.ws_connections_per_user,
        settings.ws_connections_per_address,
        limit_loopback=settings.ws_limit_loopback,
    )
    connections = Connections(bff.hub, bff.tokens, Origins(settings.allowed_origins), admission, bff.stage)
    app.include_router(websocket_router(connections))
    return app


def database_url(settings: Settings) -> URL:
    """The profile database: PostgreSQL's port 5434 + PORT_OFFSET and the name profile_db unless set otherwise."""
    url = URL.create(
        "postgresql+psycopg",
        settings.postgres_user,
        settings.postgres_password.get_secret_value(),
        settings.postgres_host,
        settings.postgres_port or 5434 + settings.port_offset,
        settings.postgres_db or "profile_db",
    )
    tls = settings.tls("postgres")
    return url.update_query_dict(tls.postgres_options()) if tls else url


def worker() -> FastAPI:
    """The application of one of several processes: `/readyz` of another says nothing of this one."""
    settings = Settings()
    setup_logging(settings.log_level)
    end_with_parent()
    return create_app(settings, ready_within_s=WORKER_READY_WITHIN_S)


def main() -> None:
    """Entry point; a configuration that can't be used is one line and exit 1."""
    try:
        settings = Settings()
        setup_logging(settings.log_level)
        app = create_app(settings)
    except ValueError as error:
        sys.exit(f"profile: {error}")
    options: dict[str, Any] = {
        **UVICORN,
        "proxy_headers": bool(settings.trusted_proxies),
        "forwarded_allow_ips": list(settings.trusted_proxies),
        "ws_ping_interval": settings.ws_ping_interval,
        "ws_ping_timeout": settings.ws_ping_interval,
    }
    where = settings.listen(DEFAULT_PORT)
    if settings.http_workers == 1:
        serve(app, *where, **options)
    else:
        serve_many("api.profile.app:worker", settings.http_workers, *where, **options)


def _tune_collector() -> None:
    """What was made until now stays: looking through it again and again would hold up every client for 0.1 s."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_EVERY, 20, 50)


def _address(address: str, default_port: int) -> str:
    host, port = split_address(address, default_port)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    main()
