"""What the service says and does while a neighbour is away, and what the aggregator is told in the end."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from profile_parts import (
    PASSWORD,
    SECRET,
    Bff,
    Neighbours,
    NewUser,
    User,
    assert_problem,
    eventually,
    process,
    push,
    unique,
    wait_ready,
    watching,
)
from websockets.exceptions import ConnectionClosed

from infra.local.part import free_port

ADD, REMOVE = "GET", "DELETE"


@pytest.fixture
def no_aggregator(neighbours: Neighbours) -> Iterator[None]:
    neighbours.aggregator_up = False
    yield
    neighbours.aggregator_up = True


@asynccontextmanager
async def visiting(service: AbstractContextManager[Bff]) -> AsyncIterator[tuple[Bff, httpx.AsyncClient]]:
    with service as bff:
        async with httpx.AsyncClient(base_url=bff.url, timeout=30, trust_env=False) as client:
            yield bff, client


async def told(bff: Bff, user: User, expected: list[tuple[str, str]]) -> None:
    await eventually(lambda: bff.neighbours.told_of(user.id) == expected)


async def test_the_aggregator_hears_of_first_holding_and_deletion(bff: Bff, new_user: NewUser) -> None:
    user = await new_user(btcusdt="1.5")
    await told(bff, user, [(ADD, "btcusdt")])
    await user.add("BTCUSDT", "1")
    await user.add("btcusdt", "-2.5")
    await user.delete("BTCusdt")
    await told(bff, user, [(ADD, "btcusdt"), (REMOVE, "btcusdt")])
    await user.add("btcusdt", "1")
    await told(bff, user, [(ADD, "btcusdt"), (REMOVE, "btcusdt"), (ADD, "btcusdt")])


async def test_without_the_aggregator_coins_are_saved_and_it_hears_later(
    bff: Bff, new_user: NewUser, neighbours: Neighbours, no_aggregator: None
) -> None:
    user = await new_user(btcusdt="1", ethusdt="2")
    assert (await user.delete("ethusdt")).status_code == 200
    assert await user.held() == {"btcusdt": "1"}
    assert (await user.client.get("/readyz")).status_code == 200
    assert neighbours.told_of(user.id) == []
    neighbours.aggregator_up = True
    await eventually(lambda: len(neighbours.told_of(user.id)) >= 2 and outbox_is_empty(bff, user))
    last = {symbol: method for method, symbol in neighbours.told_of(user.id)}
    assert last == {"btcusdt": ADD, "ethusdt": REMOVE}


def outbox_is_empty(bff: Bff, user: User) -> bool:
    return bff.sql("SELECT count(*) FROM subscription_outbox WHERE user_id = %s", user.id) == [(0,)]


async def test_what_is_refused_is_not_told(bff: Bff, new_user: NewUser) -> None:
    user = await new_user()
    assert_problem(await user.add("btcusdt", "-1"), 422)
    assert_problem(await user.delete("btcusdt"), 404)
    await user.add("ethusdt", "1")
    await told(bff, user, [(ADD, "ethusdt")])


async def test_a_new_start_tells_all_holdings_again(bff: Bff, start_bff: Any, new_user: NewUser) -> None:
    user = await new_user(btcusdt="1", ethusdt="2")
    await user.delete("btcusdt")
    await eventually(lambda: outbox_is_empty(bff, user))
    before = len(bff.neighbours.told_of(user.id))
    with start_bff(database=bff.environment["POSTGRES_DB"]):
        await eventually(lambda: bff.neighbours.told_of(user.id)[before:] == [(ADD, "ethusdt")])


async def test_the_authorization_service_away_and_back(start_bff: Any, postgres: Any, new_user: NewUser) -> None:
    port, health = free_port(), free_port()
    environment = {
        "POSTGRES_HOST": postgres.host, "POSTGRES_PORT": str(postgres.port), "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": postgres.password, "POSTGRES_DB": postgres.create_database("auth_db"),
        "JWT_SECRET": SECRET, "GRPC_PORT": str(port), "HEALTH_PORT": str(health),
    }  # fmt: skip
    body = {"name": unique(), "password": PASSWORD}
    async with visiting(start_bff(AUTH_SERVICE_ADDR=f"127.0.0.1:{port}")) as (bff, client):
        answer = await client.post("/api/v1/auth/register", json=body)
        assert_problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0
        assert (await client.get("/readyz")).status_code == 200
        user = await new_user(at=bff, btcusdt="1")  # what needs only our own database goes on
        assert await user.held() == {"btcusdt": "1"}
        with process("api.auth.server", environment) as auth:
            wait_ready(f"http://127.0.0.1:{health}/readyz", auth)
            async with asyncio.timeout(20):
                while (await client.post("/api/v1/auth/register", json=body)).status_code != 201:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            auth.send_signal(signal.SIGSTOP)
            try:
                logins = [client.post("/api/v1/auth/login", json=body) for _ in range(3)]
                for answer in await asyncio.gather(*logins):
                    assert_problem(answer, 503)  # their deadlines are over
                began = time.perf_counter()
                assert_problem(await client.post("/api/v1/auth/login", json=body), 503)
                assert time.perf_counter() - began < 0.5  # it is not asked any more
            finally:
                auth.send_signal(signal.SIGCONT)


async def test_without_the_exchange_the_symbols_are_not_known(
    start_bff: Any, neighbours: Neighbours, new_user: NewUser
) -> None:
    neighbours.exchange_up = False
    try:
        with start_bff() as bff:
            user = await new_user(at=bff)
            for answer in (await user.add("btcusdt", "1"), await user.client.get("/api/v1/symbols")):
                assert_problem(answer, 503)
                assert int(answer.headers["retry-after"]) > 0
            assert await user.held() == {}
    finally:
        neighbours.exchange_up = True


async def test_without_the_database(start_bff: Any, new_user: NewUser, bff: Bff) -> None:
    async with visiting(start_bff(wait=False, POSTGRES_PORT=str(free_port()))) as (lone, client):
        wait_ready(f"{lone.url}/livez", lone.process)
        assert_problem(await client.get("/readyz"), 503)
        bearer = (await new_user()).bearer
        answer = await client.get("/api/v1/profile", headers=bearer)
        assert_problem(answer, 503)
        assert int(answer.headers["retry-after"]) > 0


async def test_cookies_are_secure_outside_a_local_environment(start_bff: Any, registered: str) -> None:
    async with visiting(start_bff(ENV="production")) as (_, client):
        answer = await client.post("/api/v1/auth/login", json={"name": registered, "password": PASSWORD})
        assert "secure" in answer.headers["set-cookie"].lower()


async def test_proxies_are_not_for_neighbours(start_bff: Any, registered: str, new_user: NewUser) -> None:
    proxy = f"http://127.0.0.1:{free_port()}"
    environment = {"http_proxy": proxy, "HTTP_PROXY": proxy, "https_proxy": proxy, "no_proxy": "", "NO_PROXY": ""}
    async with visiting(start_bff(**environment)) as (_, client):
        answer = await client.post("/api/v1/auth/login", json={"name": registered, "password": PASSWORD})
        assert answer.status_code == 200, answer.text


async def test_a_stop_tells_open_connections_and_takes_seconds(start_bff: Any, new_user: NewUser) -> None:
    with start_bff() as bff:
        user = await new_user(at=bff, btcusdt="1")
        async with watching(bff, user) as socket:
            await socket.recv()
            bff.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as caught:
                await push(socket, until=lambda _: False)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001
        assert bff.process.wait(5) == 0
