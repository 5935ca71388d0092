"""What works when something is down (docs/operations.md has the table)."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from profile_parts import (
    PASSWORD,
    Bff,
    NewUser,
    assert_problem,
    eventually,
    now_second,
    publish,
    push,
    unique,
    watching,
    workers_of,
)

from infra.local.part import LOOPBACK, Part, free_port, spawn, stop
from infra.local.part import wait_ready as wait_for_part
from infra.local.postgres import SUPERUSER, Database
from infra.local.postgres import postgres as postgres_part


class Server:
    """A store that a test stops and starts."""

    def __init__(self, part: Part, log: Path) -> None:
        self._part, self._log = part, log
        self.start()

    def start(self) -> None:
        self._part.prepare()
        self._process = spawn(self._part, self._log)
        wait_for_part(self._part, self._process)

    def stop(self) -> None:
        stop(self._part, self._process)


@pytest.fixture
def own_postgres(store_data: Path) -> Iterator[tuple[Server, dict[str, str]]]:
    """A PostgreSQL of the test's own, and the environment that names it."""
    port = free_port()
    database = Database(store_data / f"postgres-{port}", port, "profile_db", "profile_service")
    server = Server(postgres_part("postgres", database), store_data / "postgres-of-degraded.log")
    yield server, {
        "POSTGRES_HOST": LOOPBACK, "POSTGRES_PORT": str(port), "POSTGRES_DB": "profile_db",
        "POSTGRES_USER": SUPERUSER, "POSTGRES_PASSWORD": database.superuser_password,
    }  # fmt: skip
    server.stop()


async def test_authorization_down_login_is_refused_at_once_and_tokens_still_work(
    start_bff: Any, new_user: NewUser
) -> None:
    body = {"name": unique(), "password": PASSWORD}
    with start_bff(AUTH_SERVICE_ADDR=f"127.0.0.1:{free_port()}") as bff:
        user = await new_user(at=bff, btcusdt="1")
        for _ in range(3):
            assert_problem(await user.client.post("/api/v1/auth/login", json=body), 503)
        times_s = []
        for call in ("login", "register", "login", "login", "login"):
            began = time.perf_counter()
            answer = await user.client.post(f"/api/v1/auth/{call}", json=body)
            times_s.append(time.perf_counter() - began)
            assert_problem(answer, 503)
            assert int(answer.headers["Retry-After"]) > 0
        assert sorted(times_s)[2] < 0.05
        assert "bff_authorization_circuit_open 1.0" in (await user.client.get("/metrics")).text
        assert (await user.client.get("/readyz")).status_code == 200
        assert (await user.add("btcusdt", "1")).status_code == 200
        assert await user.held() == {"btcusdt": "2"}
        async with watching(bff, user) as socket:
            assert (await push(socket))["Coins"][0]["Quantity"] == "2"


async def test_postgresql_down_is_503_and_websockets_go_on_from_memory(
    start_bff: Any, new_user: NewUser, own_postgres: tuple[Server, dict[str, str]]
) -> None:
    server, environment = own_postgres
    with start_bff(database="profile_db", **environment) as bff:
        user, stranger, second = await new_user(at=bff, linkusdt="2"), await new_user(at=bff), now_second()
        async with watching(bff, user) as socket:
            await push(socket)
            await eventually(lambda: dict(bff.redis.pubsub_numsub("linkusdt"))[b"linkusdt"])
            server.stop()
            for answer in (
                await user.add("linkusdt", "1"),
                await user.client.get("/api/v1/profile", headers=user.bearer),
            ):
                assert_problem(answer, 503)
                assert int(answer.headers["Retry-After"]) > 0
            account = {"name": unique(), "password": PASSWORD}
            assert_problem(
                await user.client.post("/api/v1/auth/register", json=account), 503
            )  # but the account is there
            login = await user.client.post("/api/v1/auth/login", json=account)
            assert login.status_code == 200
            publish(bff.redis, "linkusdt", "7.00000000", second)
            assert (await push(socket, lambda message: message["TotalValue"] == "14"))["Stale"] == []
            async with watching(bff, user) as known:
                assert (await push(known))["TotalValue"] == "14"
            with pytest.raises(Exception, match="503"):
                async with watching(bff, stranger):
                    pass
            server.start()
            async with asyncio.timeout(20):
                while (await user.add("linkusdt", "1")).status_code != 200:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert (await push(socket, lambda message: message["TotalValue"] == "21"))["Coins"][0]["Quantity"] == "3"
            theirs = {"Authorization": f"Bearer {login.json()['accessToken']}"}
            assert (await user.client.post("/api/v1/profile", headers=theirs)).status_code == 201


async def test_killed_with_the_aggregator_down_the_next_start_tells_it(
    start_bff: Any, new_user: NewUser, neighbours: Any, postgres: Any
) -> None:
    database = postgres.create_database("profile_db")
    neighbours.aggregator_up = False
    try:
        with start_bff(database=database) as bff:
            user = await new_user(at=bff, btcusdt="1", ethusdt="1")
            await user.delete("ethusdt")
            bff.process.kill()
            bff.process.wait()
        assert neighbours.told_of(user.id) == []
    finally:
        neighbours.aggregator_up = True
    with start_bff(database=database):
        await eventually(lambda: {symbol for _, symbol in neighbours.told_of(user.id)} == {"btcusdt", "ethusdt"})
        await eventually(
            lambda: dict(map(reversed, neighbours.told_of(user.id))) == {"btcusdt": "GET", "ethusdt": "DELETE"}
        )


async def test_the_exchange_down_known_symbols_can_still_be_held(bff: Bff, new_user: NewUser) -> None:
    user = await new_user(btcusdt="1")
    bff.neighbours.exchange_up = False
    try:
        assert (await user.add("ethusdt", "1")).status_code == 200
        assert await user.held() == {"btcusdt": "1", "ethusdt": "1"}
    finally:
        bff.neighbours.exchange_up = True


async def test_several_workers_behind_one_port(start_bff: Any, new_user: NewUser) -> None:
    with start_bff(HTTP_WORKERS="2") as many:
        user = await new_user(at=many, btcusdt="1")
        sockets = [watching(many, user) for _ in range(8)]
        opened = [await socket for socket in sockets]
        for socket in opened:
            await push(socket)
        subscribers = dict(many.redis.pubsub_numsub("portfolio:changed"))[b"portfolio:changed"]
        assert subscribers >= 2
        await user.add("btcusdt", "1")  # one worker takes it, all hear of it
        for socket in opened:
            await push(socket, lambda message: message["Coins"][0]["Quantity"] == "2")
        for socket in opened:
            await socket.close()
        workers = workers_of(many)
        assert len(workers) == 2
        workers[0].kill()
        await eventually(lambda: workers[0] not in workers_of(many))
        async with httpx.AsyncClient(base_url=many.url) as anew:  # the old one's connection may have been to the dead
            answer = await anew.get("/api/v1/profile", headers=user.bearer)
            assert answer.json()["Coins"][0]["Quantity"] == "2"
        await eventually(lambda: len(workers_of(many)) == 2)
        many.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(many.process.wait, 10) == 0
        with pytest.raises(httpx.ConnectError):
            await user.client.get("/livez")


async def test_workers_end_when_their_parent_is_killed(start_bff: Any, new_user: NewUser) -> None:
    with start_bff(HTTP_WORKERS="2") as many:
        client = (await new_user(at=many)).client
        many.process.kill()
        many.process.wait()
        async with asyncio.timeout(20):
            while True:
                try:
                    await client.get("/livez")
                except httpx.TransportError:
                    break
                await asyncio.sleep(0.05)
