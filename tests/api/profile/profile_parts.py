"""What the tests of the profile service hold on to."""

import asyncio
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import psycopg
from redis import Redis
from websockets.asyncio.client import ClientConnection, connect

from api.tokens import AccessTokens

ROOT = Path(__file__).parents[3]
SECRET = "a secret of the tests, 32 bytes or more"
PASSWORD = "mypassword123"
BASES = ("BTC", "ETH", "SOL", "BNB", "XRP", "ADA", "DOGE", "TRX", "LTC", "DOT", "AVAX", "LINK", "UNI", "币安人生")
COINS = "/api/v1/profile/coins"
TOKENS = AccessTokens(SECRET, 900)


@dataclass
class Neighbours:
    """The exchange and the aggregator, as small real servers: how they are, and what they were asked."""

    address: str = ""
    exchange_up: bool = True
    aggregator_up: bool = True
    told: list[tuple[str, str, str]] = field(default_factory=list)  # method, symbol, user

    def told_of(self, user: str) -> list[tuple[str, str]]:
        return [(method, symbol) for method, symbol, who in self.told if who == user]


@dataclass
class Bff:
    """A running service in a process of its own."""

    url: str
    process: subprocess.Popen[bytes]
    environment: dict[str, str]
    database: str  # libpq connection string
    redis: Redis
    neighbours: Neighbours

    @property
    def ws_url(self) -> str:
        return self.url.replace("http", "ws", 1) + "/api/v1/ws"

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database, autocommit=True) as connection:
            cursor = connection.execute(query, values)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []


@dataclass
class User:
    """A registered user with a client of their own."""

    id: str
    name: str
    token: str
    client: httpx.AsyncClient

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def add(self, symbol: str, quantity: str) -> httpx.Response:
        body = {"symbol": symbol, "quantity": quantity}
        return await self.client.post(COINS, json=body, headers=self.bearer)

    async def delete(self, symbol: str) -> httpx.Response:
        return await self.client.request("DELETE", COINS, json={"symbol": symbol}, headers=self.bearer)

    async def held(self) -> dict[str, str]:
        answer = await self.client.get("/api/v1/profile", headers=self.bearer)
        assert answer.status_code == 200, answer.text
        return {coin["Symbol"]: coin["Quantity"] for coin in answer.json()["Coins"]}


NewUser = Callable[..., Awaitable[User]]


def unique(prefix: str = "user") -> str:
    return f"{prefix}-{uuid.uuid4().hex[:12]}"


@contextmanager
def process(module: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, env={**os.environ, **environment})
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def workers_of(bff: Bff) -> list[psutil.Process]:
    """Those that run; multiprocessing has a helper process besides."""
    children = psutil.Process(bff.process.pid).children()
    alive = [one for one in children if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in alive if "spawn_main" in " ".join(one.cmdline())]


def serves(worker: psutil.Process, sockets: list[ClientConnection]) -> bool:
    """Is one of them connected to this process?"""
    ports = {one.raddr.port for one in worker.net_connections("tcp") if one.raddr}
    return any(socket.local_address[1] in ports for socket in sockets)


def wait_ready(url: str, child: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    with httpx.Client() as client:
        while True:
            try:
                if client.get(url).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            assert child.poll() is None, f"{url}: the process has ended"
            assert time.monotonic() < deadline, url
            time.sleep(0.05)


def assert_problem(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, (answer.status_code, answer.text)
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]


async def eventually(condition: Callable[[], Any], seconds: float = 20) -> Any:
    """The condition's value, as soon as it is true."""
    async with asyncio.timeout(seconds):
        while not (value := condition()):  # noqa: ASYNC110 - another process' state
            await asyncio.sleep(0.02)
    return value


def watching(bff: Bff, user: User, **options: Any) -> connect:
    """`async with watching(bff, user) as socket`."""
    return connect(bff.ws_url, additional_headers=user.bearer, **options)


async def push(socket: ClientConnection, until: Callable[[dict[str, Any]], bool] = lambda _: True) -> dict[str, Any]:
    """The next push for which `until` holds."""
    async with asyncio.timeout(20):
        while True:
            message: dict[str, Any] = json.loads(await socket.recv())
            if until(message):
                return message


def second_stat(symbol: str, close: str, timestamp: int, revision: int = 0) -> bytes:
    """SecondStat JSON with this close; the fields nobody reads here are zero."""
    fields = {
        "symbol": symbol.upper(), "timestamp": timestamp, "open": close, "high": close, "low": close, "close": close,
        "volume": "0.00000000", "quote_volume": "0.0000000000000000", "trade_count": 1,
        "taker_buy_volume": "0.00000000", "taker_buy_quote_volume": "0.0000000000000000",
        "first_trade_id": 1, "last_trade_id": 1, "revision": revision,
    }  # fmt: skip
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()


def publish(redis: Redis, symbol: str, close: str, timestamp: int, revision: int = 0) -> None:
    """As flows.second_stats does: the key, then the channel."""
    record = second_stat(symbol, close, timestamp, revision)
    redis.set(f"secondstat:last:{symbol}", record)
    redis.publish(symbol, record)


def miniticker(redis: Redis, symbol: str, close: str, event_time: int) -> None:
    """As flows.minitickers does."""
    fields = {"message_id": "x", "event_type": "24hrMiniTicker", "event_time": event_time, "receive_time": event_time}
    fields |= {"symbol": symbol.upper(), "close_price": close, "open_price": close, "high_price": close}
    fields |= {"low_price": close, "change_price": "0.00000000", "change_percent": "0.00000000"}
    redis.set(f"miniticker:last:{symbol}", json.dumps(fields))


def now_second() -> int:
    """The start of the current second, in ms."""
    return int(time.time()) * 1000
