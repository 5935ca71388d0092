"""Prices and news of portfolios from Redis: one subscription a symbol, whatever the number of clients.

Pub/sub is at-most-once, so the keys make it whole: subscribe, read the last value, then apply only what is newer.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from prometheus_client import Counter, Gauge
from redis.asyncio import Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from api.profile.prices import Quote
from flows.channels import miniticker_last_key, secondstat_channel, secondstat_last_key
from flows.domain.errors import InvalidRecord
from infra.tls import Tls

PORTFOLIOS = "portfolio:changed"  # symbols have no colon
TICK_S = 1.0  # how often minitickers are read, and the subscribed connection is pinged
SILENCE_S = 5.0  # a connection that does not even answer pings is dead
COMMAND_TIMEOUT_S = 2.0
MAX_PAUSE_S = 2.0
_AWAY = (RedisError, OSError, TimeoutError)

CONNECTED = Gauge("bff_redis_connected", "Whether prices come in")
INVALID = Counter("bff_invalid_prices", "Values on Redis that are no SecondStat or miniticker")

log = logging.getLogger(__name__)


class RedisFeed:
    """Keeps the watched quotes current. `on_price` hears of each quote that has changed.

    `on_portfolio` hears of users whose coins another process has changed; None: anybody's may have.
    """

    def __init__(
        self,
        host: str,
        port: int,
        on_price: Callable[[Quote], None],
        on_portfolio: Callable[[uuid.UUID | None], None],
        tls: Tls | None = None,
    ) -> None:
        self._on_price = on_price
        self._on_portfolio = on_portfolio
        self._instance = uuid.uuid4().hex
        self._server: dict[str, Any] = {"host": host, "port": port, "socket_timeout": COMMAND_TIMEOUT_S, "protocol": 2}
        self._server["socket_connect_timeout"] = COMMAND_TIMEOUT_S
        self._server |= tls.redis_options() if tls else {}
        self._connection_class = SSLConnection if tls else Connection
        self._redis = Redis(**self._server, ssl=tls is not None, retry=Retry(NoBackoff(), 0))
        self._watched: dict[bytes, Quote] = {}
        self._subscribed: set[bytes] = set()
        self._unread: list[Quote] = []
        self._work = asyncio.Event()

    def watch(self, quote: Quote) -> None:
        """Keep it current from now on."""
        self._watched[secondstat_channel(quote.symbol).encode()] = quote
        self._work.set()

    def unwatch(self, quote: Quote) -> None:
        """Nobody holds it any more."""
        self._watched.pop(secondstat_channel(quote.symbol).encode(), None)
        self._work.set()

    async def load(self, quotes: Iterable[Quote]) -> None:
        """Read their last values now; while Redis is away they stay as they are."""
        try:
            await self._read_last(list(quotes))
        except _AWAY as error:
            log.warning("last prices are not there: %s", _reason(error))

    async def announce(self, user_id: uuid.UUID) -> None:
        """Tell the other processes that the user's coins have changed; they may miss it."""
        try:
            await self._redis.publish(PORTFOLIOS, f"{self._instance} {user_id}")
        except _AWAY as error:
            log.warning("other processes do not hear of a change: %s", _reason(error))

    async def run(self) -> None:
        """Until cancelled; while Redis is away, the last values stay."""
        pause_s = 0.1
        while True:
            began = time.monotonic()
            try:
                await self._session()
            except* _AWAY as errors:
                log.warning("redis at %s:%d: %s", self._server["host"], self._server["port"], _reason(errors))
            finally:
                CONNECTED.set(0)
            pause_s = 0.1 if time.monotonic() - began > 10 else min(pause_s * 2, MAX_PAUSE_S)
            await asyncio.sleep(pause_s)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _session(self) -> None:
        """One connection's life. Raises what ended it."""
        connection = self._connection_class(**self._server, retry=Retry(NoBackoff(), 0))
        self._subscribed, self._unread = set(), []
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            await connection.send_command("SUBSCRIBE", PORTFOLIOS, check_health=False)
            self._work.set()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(connection))
                tasks.create_task(self._keep(connection))
        finally:
            await connection.disconnect(nowait=True)
            # Whatever ended this one has most likely ended those as well.
            await self._redis.connection_pool.disconnect(inuse_connections=False)

    async def _listen(self, connection: Connection) -> None:
        while True:
            match await connection.read_response(timeout=SILENCE_S):
                case [b"message", channel, data]:
                    self._take(channel, data)
                case [b"subscribe", channel, _]:
                    self._subscription_began(channel)

    def _take(self, channel: bytes, data: bytes) -> None:
        if quote := self._watched.get(channel):
            if _applied(quote.apply_second_stat, data):
                self._on_price(quote)
        elif channel == PORTFOLIOS.encode():
            self._take_news(data)

    def _take_news(self, data: bytes) -> None:
        sender, _, user_id = data.decode(errors="replace").partition(" ")
        if sender == self._instance:
            return
        try:
            self._on_portfolio(uuid.UUID(user_id))
        except ValueError:
            log.warning("not the id of a user on %s", PORTFOLIOS)

    def _subscription_began(self, channel: bytes) -> None:
        if quote := self._watched.get(channel):
            self._unread.append(quote)
            self._work.set()
        elif channel == PORTFOLIOS.encode():
            CONNECTED.set(1)
            self._on_portfolio(None)  # what changed while nobody listened

    async def _keep(self, connection: Connection) -> None:
        """Bring the subscriptions in line with what is watched, and read keys."""
        next_tick = time.monotonic()
        while True:
            try:
                async with asyncio.timeout(max(0.0, next_tick - time.monotonic())):
                    await self._work.wait()
            except TimeoutError:
                next_tick = time.monotonic() + TICK_S
                await connection.send_command("PING", check_health=False)
                await self._read_minitickers([one for one in self._watched.values() if not one.traded])
            self._work.clear()
            await self._subscribe(connection)
            unread, self._unread = self._unread, []
            await self._read_last(unread)

    async def _subscribe(self, connection: Connection) -> None:
        watched = set(self._watched)
        for command, channels in (
            ("SUBSCRIBE", watched - self._subscribed),
            ("UNSUBSCRIBE", self._subscribed - watched),
        ):
            if channels:
                await connection.send_command(command, *channels, check_health=False)
        self._subscribed = watched

    async def _read_last(self, quotes: list[Quote]) -> None:
        if quotes:
            values = await self._redis.mget([secondstat_last_key(one.symbol) for one in quotes])
            self._apply([(one, one.apply_second_stat) for one in quotes], values)
            await self._read_minitickers([one for one in quotes if not one.traded])

    async def _read_minitickers(self, quotes: list[Quote]) -> None:
        if quotes:
            values = await self._redis.mget([miniticker_last_key(one.symbol) for one in quotes])
            self._apply([(one, one.apply_miniticker) for one in quotes], values)

    def _apply(self, appliers: list[tuple[Quote, Callable[[bytes], bool]]], values: Sequence[Any]) -> None:
        for (quote, apply), value in zip(appliers, values, strict=True):
            if value is not None and _applied(apply, value):
                self._on_price(quote)


def _applied(apply: Callable[[bytes], bool], value: bytes) -> bool:
    """Whether it changed the quote; what is no record of ours is counted and passed over."""
    try:
        return apply(value)
    except InvalidRecord as error:
        INVALID.inc()
        log.warning("not a price: %s", error)
        return False


def _reason(error: BaseException) -> str:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return str(error) or type(error).__name__
