"""Accounts and sessions over REST (contract section 3), with the real authorization service behind them."""

import json
from http.cookies import Morsel, SimpleCookie
from typing import Any

import httpx
import pytest
from profile_parts import COINS, PASSWORD, SECRET, Bff, assert_problem, push, unique
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from api.http import MAX_BODY_BYTES
from api.profile.auth_client import AuthClient, Visitor
from api.profile.errors import InvalidInput
from api.profile.security import MAX_REFRESH_TOKEN
from api.tokens import AccessTokens

AUTH = "/api/v1/auth"
JSON = {"Content-Type": "application/json"}


def refresh_cookie(answer: httpx.Response) -> "Morsel[str]":
    return SimpleCookie(answer.headers["set-cookie"])["refreshToken"]


async def login(client: httpx.AsyncClient, name: str, password: str = PASSWORD) -> httpx.Response:
    return await client.post(f"{AUTH}/login", json={"name": name, "password": password})


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    client.cookies.clear()
    return await client.post(f"{AUTH}/refresh", headers={"Cookie": f"refreshToken={token}"})


async def test_registration_makes_the_profile_too(client: httpx.AsyncClient) -> None:
    name = unique()
    answer = await client.post(f"{AUTH}/register", json={"name": name, "password": PASSWORD})
    assert (answer.status_code, answer.json()) == (201, {"message": "user created successfully"})
    bearer = {"Authorization": f"Bearer {(await login(client, name)).json()['accessToken']}"}
    profile = await client.get("/api/v1/profile", headers=bearer)
    assert (profile.json()["Name"], profile.json()["Coins"]) == (name, [])
    added = await client.post(COINS, json={"symbol": "btcusdt", "quantity": "1.5"}, headers=bearer)
    assert (added.status_code, added.json()["Quantity"]) == (200, "1.5")


async def test_a_taken_name_is_a_conflict(client: httpx.AsyncClient, registered: str) -> None:
    again = await client.post(f"{AUTH}/register", json={"name": registered, "password": "another password"})
    assert_problem(again, 409)
    assert (await login(client, registered)).status_code == 200


async def test_login_gives_a_token_and_a_cookie(client: httpx.AsyncClient, registered: str) -> None:
    answer = await login(client, registered)
    assert answer.status_code == 200
    assert list(answer.json()) == ["accessToken"]
    claims = AccessTokens(SECRET, 900).verify(answer.json()["accessToken"])
    assert claims.name == registered
    cookie = refresh_cookie(answer)
    assert cookie["httponly"]
    assert not cookie["secure"]
    assert "; SameSite=Strict" in answer.headers["set-cookie"]
    assert cookie["path"] == AUTH
    assert 168 * 3600 - 10 <= int(cookie["max-age"]) <= 168 * 3600


async def test_wrong_name_and_wrong_password_are_the_same(client: httpx.AsyncClient, registered: str) -> None:
    wrong_password, wrong_name = await login(client, registered, "wrong password"), await login(client, unique())
    for answer in (wrong_password, wrong_name):
        assert_problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "set-cookie" not in answer.headers
    assert wrong_password.content == wrong_name.content


async def test_refreshing_rotates_and_a_token_used_twice_ends_the_session(
    client: httpx.AsyncClient, registered: str
) -> None:
    first = refresh_cookie(await login(client, registered)).value
    answer = await refresh(client, first)
    assert (answer.status_code, list(answer.json())) == (200, ["accessToken"])
    second = refresh_cookie(answer).value
    assert second != first
    assert refresh_cookie(await refresh(client, first)).value == second  # a lost answer is forgiven
    third = refresh_cookie(await refresh(client, second)).value
    assert_problem(await refresh(client, first), 401)
    assert_problem(await refresh(client, third), 401)


async def test_a_foreign_or_missing_refresh_token(client: httpx.AsyncClient) -> None:
    assert_problem(await refresh(client, "foreign"), 401)
    client.cookies.clear()
    assert_problem(await client.post(f"{AUTH}/refresh"), 401)


async def test_a_cookie_too_long_for_the_next_service_is_foreign_too(client: httpx.AsyncClient) -> None:
    cookie = {"Cookie": b"refreshToken=" + b"\xff" * 10_000}
    assert_problem(await client.post(f"{AUTH}/refresh", headers=cookie), 401)
    assert (await client.post(f"{AUTH}/logout", headers=cookie)).status_code == 200


async def test_logout_ends_the_session_and_clears_the_cookie(client: httpx.AsyncClient, registered: str) -> None:
    token = refresh_cookie(await login(client, registered)).value
    answer = await client.post(f"{AUTH}/logout")
    assert (answer.status_code, answer.json()) == (200, {"message": "logged out successfully"})
    cookie = refresh_cookie(answer)
    assert (cookie.value, cookie["max-age"], cookie["path"]) == ("", "0", AUTH)
    assert_problem(await refresh(client, token), 401)
    assert (await client.post(f"{AUTH}/logout")).status_code == 200


BAD_CREDENTIALS: list[tuple[str, Any, int]] = [
    ("no password", {"name": "someone"}, 422),
    ("a number", {"name": "someone", "password": 12345678}, 422),
    ("null", {"name": None, "password": PASSWORD}, 422),
    ("half a character", {"name": "\ud800", "password": PASSWORD}, 422),
    ("half a character in the password", {"name": "someone", "password": PASSWORD + "\udfff"}, 422),
    ("a list", ["someone", PASSWORD], 422),
    ("oversized", {"name": "x" * 70_000, "password": PASSWORD}, 413),
]


@pytest.mark.parametrize("call", ["register", "login"])
@pytest.mark.parametrize(("what", "body", "status"), BAD_CREDENTIALS, ids=[what for what, *_ in BAD_CREDENTIALS])
async def test_bad_credentials(client: httpx.AsyncClient, call: str, what: str, body: Any, status: int) -> None:
    # httpx would not write half characters; in JSON they are possible.
    assert_problem(await client.post(f"{AUTH}/{call}", content=json.dumps(body), headers=JSON), status)


def longest(**fields: str) -> bytes:
    """A body as long as one may be; the last field fills it up."""
    start, end = json.dumps(fields).encode()[:-2], b'"}'
    return start + b"x" * (MAX_BODY_BYTES - len(start) - len(end)) + end


async def test_a_body_as_long_as_it_may_be_gets_the_usual_answers(client: httpx.AsyncClient, registered: str) -> None:
    headers = {**JSON, "User-Agent": "\xff" * 200, "Cookie": "refreshToken=" + "x" * MAX_REFRESH_TOKEN}
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}

    async def post(call: str, body: bytes, **more: str) -> httpx.Response:
        return await client.post(f"{AUTH}/{call}", content=body, headers={**encoded, **more})

    assert_problem(await post("login", longest(name=registered, password="")), 401)
    assert_problem(await post("register", longest(name=unique(), password="")), 422)
    bearer = f"Bearer {(await login(client, registered)).json()['accessToken']}"
    assert_problem(await post("password", longest(currentPassword=PASSWORD, newPassword=""), Authorization=bearer), 422)


async def test_a_message_too_long_for_the_service_is_not_too_many(auth_address: str) -> None:
    auth = AuthClient(auth_address)
    with pytest.raises(InvalidInput, match="too long"):
        await auth.login("x" * 200_000, PASSWORD, Visitor())
    await auth.close()


@pytest.mark.parametrize(
    ("name", "password"),
    [("", PASSWORD), ("x" * 65, PASSWORD), ("a\x00b", PASSWORD), (" a", PASSWORD), ("someone", "short")],
)
async def test_names_and_passwords_that_cannot_be_taken(
    bff: Bff, client: httpx.AsyncClient, name: str, password: str
) -> None:
    before = bff.sql("SELECT count(*) FROM profiles")
    assert_problem(await client.post(f"{AUTH}/register", json={"name": name, "password": password}), 422)
    assert bff.sql("SELECT count(*) FROM profiles") == before


async def test_openapi_tells_every_status_as_a_problem(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    documented = {
        "register": {"201", "409", "413", "422", "429", "503"},
        "login": {"200", "401", "413", "422", "429", "503"},
        "refresh": {"200", "401", "413", "422", "429", "503"},
    }
    for call, statuses in documented.items():
        answers = paths[f"{AUTH}/{call}"]["post"]["responses"]
        assert statuses <= answers.keys()
        assert all("application/problem+json" in answers[one]["content"] for one in statuses if one >= "400")
    assert "422" in paths[COINS]["delete"]["responses"]


async def test_a_deleted_accounts_websockets_end_in_every_process(
    bff: Bff, start_bff: Any, client: httpx.AsyncClient, registered: str
) -> None:
    token = (await login(client, registered)).json()["accessToken"]
    bearer = {"Authorization": f"Bearer {token}"}
    await client.post(COINS, json={"symbol": "btcusdt", "quantity": "1"}, headers=bearer)
    with start_bff(bff.environment["POSTGRES_DB"]) as other:
        async with (
            connect(bff.ws_url, additional_headers=bearer) as here,
            connect(other.ws_url, additional_headers=bearer) as there,
        ):
            assert [(await push(one))["Coins"][0]["Quantity"] for one in (here, there)] == ["1", "1"]
            gone = await client.request("DELETE", f"{AUTH}/account", json={"password": PASSWORD}, headers=bearer)
            assert gone.status_code == 200, gone.text
            for one in (here, there):
                with pytest.raises(ConnectionClosed) as caught:
                    await push(one)
                assert caught.value.rcvd is not None
                assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4401, "the account has been deleted")
        with pytest.raises(InvalidStatus) as refused:
            await connect(other.ws_url, additional_headers=bearer)
        assert refused.value.response.status_code == 401
