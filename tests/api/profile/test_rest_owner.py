"""What the owner of an account does with it over REST: sessions, password, deletion; and that nobody else can."""

import asyncio
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest
import sqlalchemy as sa
from profile_parts import COINS, PASSWORD, SECRET, Bff, assert_problem, eventually, process, unique, wait_ready
from sqlalchemy import URL

from api.database import Database
from api.profile import deletion
from api.profile.account_client import AccountClient
from api.profile.auth_client import AuthClient
from api.profile.deletion import Deletions
from infra.local.part import free_port

AUTH = "/api/v1/auth"
NEW = "another password of mine"


@dataclass
class Account:
    """A logged-in account; the client keeps the cookie as a browser does."""

    name: str
    client: httpx.AsyncClient
    token: str = ""

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def login(self, password: str = PASSWORD) -> httpx.Response:
        answer = await self.client.post(f"{AUTH}/login", json={"name": self.name, "password": password})
        if answer.is_success:
            self.token = answer.json()["accessToken"]
        return answer

    async def call(self, method: str, path: str, **options: Any) -> httpx.Response:
        return await self.client.request(method, path, headers=self.bearer, **options)

    async def sessions(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.call("GET", f"{AUTH}/sessions")).json()
        return found


async def account_at(url: str, name: str = "") -> Account:
    account = Account(name or unique(), httpx.AsyncClient(base_url=url, timeout=30, verify=False))
    if not name:
        body = {"name": account.name, "password": PASSWORD}
        assert (await account.client.post(f"{AUTH}/register", json=body)).status_code == 201
    assert (await account.login()).status_code == 200
    return account


@pytest.fixture
async def account(bff: Bff) -> AsyncIterator[Account]:
    account = await account_at(bff.url)
    yield account
    await account.client.aclose()


@pytest.fixture
async def device(bff: Bff, account: Account) -> AsyncIterator[Account]:
    """The same account, logged in once more elsewhere."""
    device = await account_at(bff.url, account.name)
    yield device
    await device.client.aclose()


@pytest.fixture
async def stranger(bff: Bff) -> AsyncIterator[Account]:
    stranger = await account_at(bff.url)
    yield stranger
    await stranger.client.aclose()


async def test_sessions_are_listed(account: Account, device: Account) -> None:
    found = await account.sessions()
    assert [one["current"] for one in found] == [False, True]
    assert set(found[0]) == {"id", "createdAt", "lastUsedAt", "expiresAt", "current", "address", "userAgent"}
    assert {one["address"] for one in found} == {"127.0.0.1"}
    assert found[0]["userAgent"].startswith("python-httpx")


async def test_one_session_is_ended(account: Account, device: Account) -> None:
    other = next(one["id"] for one in await account.sessions() if not one["current"])
    answer = await account.call("DELETE", f"{AUTH}/sessions/{other}")
    assert (answer.status_code, answer.json()) == (200, {"message": "session revoked"})
    assert_problem(await device.client.post(f"{AUTH}/refresh"), 401)
    assert (await account.client.post(f"{AUTH}/refresh")).status_code == 200
    assert_problem(await account.call("DELETE", f"{AUTH}/sessions/{other}"), 404)


async def test_a_session_without_its_id_is_not_all_of_them(account: Account, device: Account) -> None:
    assert_problem(await account.call("DELETE", f"{AUTH}/sessions/"), 404)
    assert len(await account.sessions()) == 2


async def test_all_sessions_are_ended_and_the_cookie_goes(account: Account, device: Account) -> None:
    assert (await account.call("DELETE", f"{AUTH}/sessions")).json() == {"message": "sessions revoked"}
    assert "refreshToken" not in account.client.cookies
    assert_problem(await device.client.post(f"{AUTH}/refresh"), 401)
    assert_problem(await account.call("GET", f"{AUTH}/sessions"), 401)


async def test_a_new_password_ends_the_other_sessions(account: Account, device: Account) -> None:
    wrong = {"currentPassword": "not the password", "newPassword": NEW}
    assert_problem(await account.call("POST", f"{AUTH}/password", json=wrong), 403)
    common = {"currentPassword": PASSWORD, "newPassword": "password123"}
    assert_problem(await account.call("POST", f"{AUTH}/password", json=common), 422)
    right = {"currentPassword": PASSWORD, "newPassword": NEW}
    answer = await account.call("POST", f"{AUTH}/password", json=right)
    assert (answer.status_code, answer.json()) == (200, {"message": "password changed"})
    assert_problem(await device.client.post(f"{AUTH}/refresh"), 401)
    assert (await account.client.post(f"{AUTH}/refresh")).status_code == 200
    assert_problem(await account.login(), 401)
    assert (await account.login(NEW)).status_code == 200


async def test_a_common_password_is_refused(client: httpx.AsyncClient) -> None:
    body = {"name": unique(), "password": "password123"}
    assert_problem(await client.post(f"{AUTH}/register", json=body), 422)


async def test_an_attacker_is_told_to_wait(bff: Bff, account: Account, client: httpx.AsyncClient) -> None:
    body = {"name": account.name, "password": "not the password"}
    answers = await asyncio.gather(*(client.post(f"{AUTH}/login", json=body) for _ in range(14)))
    assert {answer.status_code for answer in answers} == {401, 429}
    assert all(0 < int(one.headers["retry-after"]) <= 45 for one in answers if one.status_code == 429)
    assert (await account.login()).status_code == 200  # the owner's browser has a cookie of an earlier session


async def test_a_forged_address_is_not_believed(account: Account, client: httpx.AsyncClient) -> None:
    headers = {"X-Forwarded-For": "203.0.113.77"}
    body = {"name": account.name, "password": PASSWORD}
    answer = await client.post(f"{AUTH}/login", json=body, headers=headers)
    assert answer.status_code == 200
    assert {one["address"] for one in await account.sessions()} == {"127.0.0.1"}


async def test_a_trusted_proxys_word_counts(start_bff: Any, account: Account) -> None:
    with start_bff(TRUSTED_PROXIES="127.0.0.0/8,10.0.0.0/8") as bff:
        body = {"name": account.name, "password": PASSWORD}
        headers = {"X-Forwarded-For": "198.51.100.1, 203.0.113.77, 10.1.2.3"}
        async with httpx.AsyncClient(base_url=bff.url) as client:
            answer = await client.post(f"{AUTH}/login", json=body, headers=headers)
        assert answer.status_code == 200
    assert (await account.sessions())[0]["address"] == "203.0.113.77"


# Pairs of users


async def test_no_user_reads_or_changes_anothers_account(account: Account, stranger: Account) -> None:
    await account.call("POST", COINS, json={"symbol": "btcusdt", "quantity": "1"})
    foreign = (await account.sessions())[0]["id"]
    assert_problem(await stranger.call("DELETE", f"{AUTH}/sessions/{foreign}"), 404)
    assert foreign not in {one["id"] for one in await stranger.sessions()}
    assert (await stranger.call("GET", "/api/v1/profile")).json()["Coins"] == []
    assert_problem(await stranger.call("DELETE", COINS, json={"symbol": "btcusdt"}), 404)
    body = {"currentPassword": "not the password", "newPassword": NEW}
    assert_problem(await stranger.call("POST", f"{AUTH}/password", json=body), 403)
    # The stranger's cookie beside the owner's token, and the other way round, are worth no more than each alone.
    mixed = httpx.AsyncClient(base_url=account.client.base_url, cookies=stranger.client.cookies)
    mine = (await mixed.get(f"{AUTH}/sessions", headers=account.bearer)).json()
    assert [one["id"] for one in mine] == [foreign]
    assert (await stranger.call("DELETE", f"{AUTH}/sessions")).status_code == 200
    assert (await stranger.call("DELETE", f"{AUTH}/account")).status_code == 401
    assert (await account.call("GET", "/api/v1/profile")).json()["Coins"][0]["Quantity"] == "1"
    assert (await account.client.post(f"{AUTH}/refresh")).status_code == 200
    await mixed.aclose()


async def test_deleting_one_account_leaves_the_other(bff: Bff, account: Account, stranger: Account) -> None:
    for one in (account, stranger):
        await one.call("POST", COINS, json={"symbol": "btcusdt", "quantity": "1"})
    assert (await stranger.call("DELETE", f"{AUTH}/account")).status_code == 200
    assert (await account.call("GET", "/api/v1/profile")).json()["Coins"][0]["Quantity"] == "1"
    assert (await account.login()).status_code == 200


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "sessions"), ("DELETE", "sessions"), ("DELETE", "sessions/3dc9950c-49d3-4977-bf48-a243b4925f7c"), ("POST", "password"),
    ("DELETE", "account"),
])  # fmt: skip
async def test_without_a_token(client: httpx.AsyncClient, method: str, path: str) -> None:
    body = {"currentPassword": PASSWORD, "newPassword": NEW} if path == "password" else None
    answer = await client.request(method, f"{AUTH}/{path}", json=body)
    assert_problem(answer, 401)
    assert answer.headers["www-authenticate"] == "Bearer"


# Deletion


def rows_of(bff: Bff, account_id: str) -> int:
    tables = ("profiles WHERE id", "coins WHERE user_id", "idempotency_keys WHERE user_id")
    return sum(bff.sql(f"SELECT count(*) FROM {one} = %s", account_id)[0][0] for one in tables)


async def test_a_deleted_account_leaves_nothing(bff: Bff, account: Account) -> None:
    added = await account.call("POST", COINS, json={"symbol": "btcusdt", "quantity": "1"})
    user_id = added.json()["UserID"]
    assert rows_of(bff, user_id) == 2
    answer = await account.call("DELETE", f"{AUTH}/account", json={"password": PASSWORD})
    assert (answer.status_code, answer.json()) == (200, {"message": "account deleted"})
    assert "refreshToken" not in account.client.cookies
    assert rows_of(bff, user_id) == 0
    assert bff.sql("SELECT ticket FROM account_deletions WHERE user_id = %s", user_id) == [(None,)]
    await eventually(lambda: ("DELETE", "btcusdt") in bff.neighbours.told_of(user_id))
    # The access token still runs, and brings nothing back.
    assert_problem(await account.call("POST", "/api/v1/profile"), 401)
    assert_problem(await account.call("GET", "/api/v1/profile"), 404)
    assert_problem(await account.call("POST", COINS, json={"symbol": "btcusdt", "quantity": "1"}), 404)
    assert rows_of(bff, user_id) == 0
    assert_problem(await account.login(), 401)
    again = await account.client.post(f"{AUTH}/register", json={"name": account.name, "password": PASSWORD})
    assert again.status_code == 201


async def test_a_wrong_password_deletes_nothing(account: Account) -> None:
    assert_problem(await account.call("DELETE", f"{AUTH}/account", json={"password": "not the password"}), 403)
    assert (await account.call("GET", "/api/v1/profile")).status_code == 200
    assert (await account.login()).status_code == 200


@pytest.mark.faults
async def test_a_deletion_goes_on_when_the_authorization_service_is_back(start_bff: Any, postgres: Any) -> None:
    """It is stopped after the ticket was given, and the BFF is killed before it is back."""
    port, health = free_port(), free_port()
    environment = {
        "POSTGRES_HOST": postgres.host, "POSTGRES_PORT": str(postgres.port), "POSTGRES_USER": postgres.user,
        "POSTGRES_PASSWORD": postgres.password, "POSTGRES_DB": postgres.create_database("auth_db"),
        "JWT_SECRET": SECRET, "GRPC_PORT": str(port), "HEALTH_PORT": str(health),
    }  # fmt: skip
    here = {"AUTH_SERVICE_ADDR": f"127.0.0.1:{port}"}
    database = postgres.create_database("profile_db")
    with process("api.auth.server", environment) as auth:
        wait_ready(f"http://127.0.0.1:{health}/readyz", auth)
        with start_bff(database=database, **here) as bff:
            account = await account_at(bff.url)
            # The deletion waits for the profile's row, and the authorization service goes away meanwhile.
            with locked_profile(bff, account.name):
                deleting = asyncio.create_task(account.call("DELETE", f"{AUTH}/account"))
                await eventually(lambda: waiting_for_locks(bff))
                auth.send_signal(signal.SIGKILL)
                auth.wait()
            answer = await deleting
            assert (answer.status_code, answer.json()) == (202, {"message": "account is being deleted"})
            bff.process.kill()
            bff.process.wait()
    with start_bff(database=database, **here) as bff:
        assert bff.sql("SELECT count(*) FROM profiles")[0][0] == 0
        assert bff.sql("SELECT ticket IS NOT NULL FROM account_deletions") == [(True,)]
        with process("api.auth.server", environment) as auth:
            wait_ready(f"http://127.0.0.1:{health}/readyz", auth)
            await eventually(lambda: bff.sql("SELECT ticket FROM account_deletions") == [(None,)], 40)
            assert_problem(await login_at(bff.url, account.name), 401)
    await account.client.aclose()


async def test_deletions_that_are_refused_keep_no_other_from_being_finished(
    bff: Bff, postgres: Any, auth_address: str, account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deletion, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(deletion, "TRIED_AT_ONCE", 5)
    name, auth = postgres.create_database("profile_db"), AuthClient(auth_address)
    url = URL.create("postgresql+psycopg", postgres.user, postgres.password, postgres.host, postgres.port, name)
    database, accounts = Database(url, "profile"), AccountClient(auth)
    await database.check()
    ticket = await accounts.confirm_deletion(account.token, PASSWORD)
    table, now = deletion.deletions, datetime.now(UTC)
    ids = [uuid.UUID(int=n + 1) for n in range(16)]
    async with database.transaction() as connection:
        rows = [{"user_id": one, "ticket": "no good", "created_at": now} for one in ids]
        await connection.execute(table.insert(), rows)
    work = asyncio.create_task(Deletions(database, accounts).run())
    for good in (ids[12], ids[0]):  # beyond what is tried at once, and before it, in a later round
        async with database.transaction() as connection:
            await connection.execute(table.update().where(table.c.user_id == good).values(ticket=ticket))
        async with asyncio.timeout(20):
            is_done = False
            while not is_done:
                assert not work.done()
                async with database.transaction() as connection:
                    query = sa.select(table.c.ticket.is_(None)).where(table.c.user_id == good)
                    is_done = bool((await connection.execute(query)).scalar_one())
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    assert_problem(await account.login(), 401)
    await auth.close()
    await database.close()


async def login_at(url: str, name: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        return await client.post(f"{AUTH}/login", json={"name": name, "password": PASSWORD})


async def test_without_the_authorization_service_nothing_is_deleted(start_bff: Any, bff: Bff, new_user: Any) -> None:
    with start_bff(AUTH_SERVICE_ADDR=f"127.0.0.1:{free_port()}") as lone:
        user = await new_user(at=lone, btcusdt="1")
        assert_problem(await user.client.delete(f"{AUTH}/account", headers=user.bearer), 503)
        assert await user.held() == {"btcusdt": "1"}


@contextmanager
def locked_profile(bff: Bff, name: str) -> Iterator[None]:
    with psycopg.connect(bff.database) as connection:
        assert connection.execute("SELECT 1 FROM profiles WHERE name = %s FOR UPDATE", [name]).fetchall()
        yield


def waiting_for_locks(bff: Bff) -> bool:
    return bool(
        bff.sql("SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
    )
