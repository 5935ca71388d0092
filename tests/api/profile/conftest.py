"""The profile service as a process, on PostgreSQL, Valkey and the real authorization service.

The exchange and the aggregator are small HTTP servers, so that tests can take them away and see what they were asked.
"""

import asyncio
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web
from profile_parts import BASES, PASSWORD, SECRET, TOKENS, Bff, Neighbours, NewUser, User, process, unique, wait_ready
from redis import Redis

from infra.local.part import free_port

StartBff = Callable[..., AbstractContextManager[Bff]]


@pytest.fixture(scope="module")
def neighbours() -> Iterator[Neighbours]:
    """Served from a thread of their own, for the whole module."""
    found, ready, stopped = Neighbours(), threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_until_complete, args=(_serve(found, ready, stopped),))
    thread.start()
    assert ready.wait(10)
    yield found
    loop.call_soon_threadsafe(stopped.set)
    thread.join(10)
    loop.close()


async def _serve(neighbours: Neighbours, ready: threading.Event, stopped: asyncio.Event) -> None:
    async def exchange_info(request: web.Request) -> web.Response:
        rows = [
            {"symbol": f"{base}USDT", "status": "TRADING", "baseAsset": base, "quoteAsset": "USDT"} for base in BASES
        ]
        rows.append({"symbol": "ETHBTC", "status": "TRADING", "baseAsset": "ETH", "quoteAsset": "BTC"})
        rows.append({"symbol": "OLDUSDT", "status": "BREAK", "baseAsset": "OLD", "quoteAsset": "USDT"})
        return web.json_response({"symbols": rows}, status=200 if neighbours.exchange_up else 500)

    async def coin(request: web.Request) -> web.Response:
        if not neighbours.aggregator_up:
            return web.json_response({}, status=503)
        neighbours.told.append((request.method, request.query["symbol"], request.query["id"]))
        return web.json_response({"symbol": request.query["symbol"], "subscribers": 1})

    app = web.Application()
    app.add_routes([web.get("/api/v3/exchangeInfo", exchange_info), web.get("/coin", coin), web.delete("/coin", coin)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    neighbours.address = f"127.0.0.1:{runner.addresses[0][1]}"
    ready.set()
    await stopped.wait()
    await runner.cleanup()


@pytest.fixture(scope="session")
def auth_address(postgres: Any) -> Iterator[str]:
    """The authorization service, in a process of its own."""
    port, health = free_port(), free_port()
    database = postgres.create_database("auth_db")
    environment = _postgres(postgres, database) | {"GRPC_PORT": str(port), "HEALTH_PORT": str(health)}
    with process("api.auth.server", environment | {"JWT_SECRET": SECRET}) as child:
        wait_ready(f"http://127.0.0.1:{health}/readyz", child)
        yield f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def start_bff(postgres: Any, valkey: str, auth_address: str, neighbours: Neighbours) -> StartBff:
    """`with start_bff(**environment) as bff`: a service with a database of its own, unless told otherwise."""

    @contextmanager
    def start(database: str | None = None, wait: bool = True, **extra: str) -> Iterator[Bff]:
        port = free_port()
        database = database or postgres.create_database("profile_db")
        environment = _postgres(postgres, database) | {
            "HTTP_PORT": str(port),
            "JWT_SECRET": SECRET,
            "REDIS_ADDR": valkey,
            "AUTH_SERVICE_ADDR": auth_address,
            "AGGREGATOR_ADDR": neighbours.address,
            "EXCHANGE_REST_URL": f"http://{neighbours.address}",
            "ALLOWED_ORIGINS": "https://portfolio.example",
            **extra,
        }
        url, (host, redis_port) = f"http://127.0.0.1:{port}", valkey.split(":")
        with process("api.profile.app", environment) as child, Redis(host=host, port=int(redis_port)) as redis:
            if wait:
                wait_ready(f"{url}/readyz", child)
            yield Bff(url, child, environment, postgres.conninfo(database), redis, neighbours)

    return start


@pytest.fixture(scope="module")
def bff(start_bff: StartBff) -> Iterator[Bff]:
    with start_bff() as running:
        yield running


@pytest.fixture
async def new_user(bff: Bff) -> AsyncIterator[NewUser]:
    """`await new_user(btcusdt="1.5")`: a user with a profile and coins, without the slow way over a password."""
    clients: list[httpx.AsyncClient] = []

    async def make(at: Bff = bff, **coins: str) -> User:
        client = httpx.AsyncClient(base_url=at.url, timeout=30, verify=False)
        clients.append(client)
        user_id, name = str(uuid.uuid4()), unique()
        user = User(user_id, name, TOKENS.issue(user_id, name)[0], client)
        created = await client.post("/api/v1/profile", headers=user.bearer)
        assert created.status_code == 201, created.text
        for symbol, quantity in coins.items():
            added = await user.add(symbol, quantity)
            assert added.status_code == 200, added.text
        return user

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
async def client(bff: Bff) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=bff.url, timeout=30, verify=False) as client:
        yield client


@pytest.fixture
async def registered(client: httpx.AsyncClient) -> str:
    """The name of a user with an account."""
    name = unique()
    answer = await client.post("/api/v1/auth/register", json={"name": name, "password": PASSWORD})
    assert answer.status_code == 201, answer.text
    return name


def _postgres(server: Any, database: str) -> dict[str, str]:
    return {
        "POSTGRES_HOST": server.host,
        "POSTGRES_PORT": str(server.port),
        "POSTGRES_USER": server.user,
        "POSTGRES_PASSWORD": server.password,
        "POSTGRES_DB": database,
    }
