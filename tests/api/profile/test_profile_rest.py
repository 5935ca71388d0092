"""Profiles and coins over REST (contract section 3)."""

import asyncio
import re
from decimal import Decimal
from typing import Any

import httpx
import pytest
from profile_parts import COINS, TOKENS, Bff, NewUser, assert_problem, unique

from api.tokens import AccessTokens

BIG = "9" * 18 + "." + "9" * 18


async def test_a_new_coin(bff: Bff, new_user: NewUser) -> None:
    user = await new_user()
    answer = await user.add("BtcUSDT", "1.50")
    assert answer.status_code == 200
    coin = answer.json()
    assert list(coin) == ["ID", "CreatedAt", "UpdatedAt", "DeletedAt", "Symbol", "Quantity", "UserID"]
    assert (coin["Symbol"], coin["Quantity"], coin["UserID"], coin["DeletedAt"]) == ("btcusdt", "1.5", user.id, None)
    for time in (coin["CreatedAt"], coin["UpdatedAt"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z", time)


async def test_the_profile_has_its_coins_by_id(new_user: NewUser) -> None:
    user = await new_user(solusdt="3", btcusdt="1", ethusdt="2")
    answer = await user.client.get("/api/v1/profile", headers=user.bearer)
    assert list(answer.json()) == ["ID", "Name", "Coins"]
    assert (answer.json()["ID"], answer.json()["Name"]) == (user.id, user.name)
    assert [coin["Symbol"] for coin in answer.json()["Coins"]] == ["solusdt", "btcusdt", "ethusdt"]
    ids = [coin["ID"] for coin in answer.json()["Coins"]]
    assert ids == sorted(ids)


async def test_no_coins_is_an_empty_list(new_user: NewUser) -> None:
    assert await (await new_user()).held() == {}


async def test_without_a_profile(client: httpx.AsyncClient) -> None:
    bearer = {"Authorization": f"Bearer {TOKENS.issue('00000000-0000-4000-8000-00000000000a', 'nobody')[0]}"}
    assert_problem(await client.get("/api/v1/profile", headers=bearer), 404)
    body = {"symbol": "btcusdt", "quantity": "1"}
    assert_problem(await client.post(COINS, json=body, headers=bearer), 404)
    assert_problem(await client.request("DELETE", COINS, json={"symbol": "btcusdt"}, headers=bearer), 404)


async def test_a_second_profile_is_a_conflict(new_user: NewUser) -> None:
    user = await new_user()
    assert_problem(await user.client.post("/api/v1/profile", headers=user.bearer), 409)


async def test_positive_adds_and_negative_reduces(new_user: NewUser) -> None:
    user = await new_user(btcusdt="1.5")
    assert (await user.add("btcusdt", "0.000000000000000001")).json()["Quantity"] == "1.500000000000000001"
    assert (await user.add("btcusdt", "-0.500000000000000001")).json()["Quantity"] == "1"
    assert (await user.add("btcusdt", "+9")).json()["Quantity"] == "10"


async def test_at_exactly_zero_the_coin_stays(new_user: NewUser) -> None:
    user = await new_user(btcusdt="1.5")
    first = (await user.add("btcusdt", "-1.5")).json()
    assert first["Quantity"] == "0"
    assert await user.held() == {"btcusdt": "0"}
    assert (await user.add("btcusdt", "2")).json()["ID"] == first["ID"]


async def test_all_36_digits_are_kept(new_user: NewUser) -> None:
    user = await new_user(btcusdt=BIG)
    assert await user.held() == {"btcusdt": BIG}
    assert_problem(await user.add("btcusdt", "0.000000000000000001"), 422)
    assert await user.held() == {"btcusdt": BIG}
    assert (await user.add("btcusdt", f"-{BIG}")).json()["Quantity"] == "0"


async def test_below_zero_is_refused(new_user: NewUser) -> None:
    user = await new_user(btcusdt="1.5")
    assert_problem(await user.add("btcusdt", "-1.500000000000000001"), 422)
    assert_problem(await user.add("ethusdt", "-1"), 422)
    assert await user.held() == {"btcusdt": "1.5"}


async def test_a_deleted_coin_starts_afresh(new_user: NewUser) -> None:
    user = await new_user(btcusdt="1.5")
    before = (await user.add("btcusdt", "1")).json()
    deleted = await user.delete("BTCUSDT")
    assert (deleted.status_code, deleted.json()) == (200, {"message": "coin successfully deleted"})
    assert await user.held() == {}
    assert_problem(await user.delete("btcusdt"), 404)
    after = (await user.add("btcusdt", "7")).json()
    assert after["Quantity"] == "7"
    assert after["ID"] > before["ID"]
    assert after["CreatedAt"] > before["CreatedAt"]


async def test_fifty_parallel_posts_sum_exactly(new_user: NewUser) -> None:
    user = await new_user()
    amounts = [Decimal(n) / 10**18 + n for n in range(1, 51)]
    answers = await asyncio.gather(*(user.add("btcusdt", str(amount)) for amount in amounts))
    assert {answer.status_code for answer in answers} == {200}
    assert await user.held() == {"btcusdt": str(sum(amounts)).rstrip("0")}


async def test_adding_and_deleting_at_the_same_time_never_fails(bff: Bff, new_user: NewUser) -> None:
    user = await new_user()
    work = [user.add("btcusdt", "1") if n % 3 else user.delete("btcusdt") for n in range(30)]
    answers = await asyncio.gather(*work)
    assert {answer.status_code for answer in answers} <= {200, 404}
    live = "SELECT count(*) FROM coins WHERE user_id = %s AND deleted_at IS NULL"
    assert bff.sql(live, user.id)[0][0] <= 1


BAD_COINS: list[tuple[str, Any]] = [
    ("a number", {"symbol": "btcusdt", "quantity": 1.5}),
    ("an integer", {"symbol": "btcusdt", "quantity": 1}),
    ("a boolean", {"symbol": "btcusdt", "quantity": True}),
    ("null", {"symbol": "btcusdt", "quantity": None}),
    ("missing quantity", {"symbol": "btcusdt"}),
    ("missing symbol", {"quantity": "1"}),
    ("symbol of another type", {"symbol": 7, "quantity": "1"}),
    ("empty symbol", {"symbol": "", "quantity": "1"}),
    ("long symbol", {"symbol": "b" * 33, "quantity": "1"}),
    ("unprintable symbol", {"symbol": "btc\x00usdt", "quantity": "1"}),
    ("unknown symbol", {"symbol": "nosuchcoin", "quantity": "1"}),
    ("same capitals", {"symbol": "btcu\u017fdt", "quantity": "1"}),
    ("another quote", {"symbol": "ethbtc", "quantity": "1"}),
    ("does not trade", {"symbol": "oldusdt", "quantity": "1"}),
    ("a list", []),
    *(
        (f"quantity {text!r}", {"symbol": "btcusdt", "quantity": text})
        for text in (
            "", " ", "0", "0.0", "-0", "abc", "1e3", "1E-3", "NaN", "Infinity", "-Infinity", "0x10", "1_000", "1,5",
            " 1", "1 ", "1\n", "1.", ".5", "--1", "+-1", "٣", "１", "0.1234567890123456789", "1" * 19, "-2", "1\x00",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("what", "body"), BAD_COINS, ids=[what for what, _ in BAD_COINS])
async def test_bad_coins_change_nothing(new_user: NewUser, what: str, body: Any) -> None:
    user = await new_user(btcusdt="1.5")
    assert_problem(await user.client.post(COINS, json=body, headers=user.bearer), 422)
    assert await user.held() == {"btcusdt": "1.5"}


BAD_BODIES: list[tuple[str, bytes, int]] = [
    ("empty", b"", 422),
    ("half", b"{", 422),
    ("not UTF-8", b'{"symbol":"\xff","quantity":"1"}', 422),
    ("UTF-16", '{"symbol":"btcusdt","quantity":"1"}'.encode("utf-16"), 422),
    ("a constant of Python's", b'{"symbol":"btcusdt","quantity":"1","more":NaN}', 422),
    ("half a character", b'{"symbol":"btc\\ud800usdt","quantity":"1"}', 422),
    ("nested", b"[" * 30_000, 422),
    ("oversized", b" " * 70_000, 413),
]


@pytest.mark.parametrize(("what", "body", "status"), BAD_BODIES, ids=[what for what, *_ in BAD_BODIES])
@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_bad_bodies_change_nothing(new_user: NewUser, what: str, body: bytes, status: int, method: str) -> None:
    user = await new_user(btcusdt="1.5")
    headers = {**user.bearer, "Content-Type": "application/json"}
    assert_problem(await user.client.request(method, COINS, content=body, headers=headers), status)
    assert await user.held() == {"btcusdt": "1.5"}


def tokens() -> dict[str, dict[str, str]]:
    expired = AccessTokens("a secret of the tests, 32 bytes or more", -10).issue(
        "x" * 8 + "-0000-4000-8000-" + "0" * 12, "x"
    )
    foreign = AccessTokens("another secret of 32 bytes or more", 900).issue(
        "0" * 8 + "-0000-4000-8000-" + "0" * 12, "x"
    )
    return {
        "none": {},
        "empty": {"Authorization": ""},
        "another scheme": {"Authorization": "Basic dXNlcjpwYXNz"},
        "no token": {"Authorization": "Bearer"},
        "garbage": {"Authorization": "Bearer x.y.z"},
        "expired": {"Authorization": f"Bearer {expired[0]}"},
        "foreign": {"Authorization": f"Bearer {foreign[0]}"},
    }


@pytest.mark.parametrize("headers", tokens().values(), ids=tokens().keys())
async def test_without_a_good_token(client: httpx.AsyncClient, headers: dict[str, str]) -> None:
    for method, path, body in (
        ("GET", "/api/v1/profile", None),
        ("POST", "/api/v1/profile", None),
        ("POST", COINS, {"symbol": "btcusdt", "quantity": "1"}),
        ("DELETE", COINS, {"symbol": "btcusdt"}),
    ):
        answer = await client.request(method, path, json=body, headers=headers)
        assert_problem(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_users_do_not_see_or_change_each_other(new_user: NewUser) -> None:
    one, other = await new_user(btcusdt="1"), await new_user(btcusdt="2", ethusdt="3")
    await one.add("btcusdt", "5")
    await one.delete("btcusdt")
    assert_problem(await one.delete("ethusdt"), 404)
    assert await other.held() == {"btcusdt": "2", "ethusdt": "3"}
    assert await one.held() == {}


async def test_symbols_can_be_searched(client: httpx.AsyncClient) -> None:
    everything = (await client.get("/api/v1/symbols")).json()
    assert {"symbol": "btcusdt", "base": "BTC", "quote": "USDT"} in everything
    assert {one["quote"] for one in everything} == {"USDT"}
    assert "oldusdt" not in {one["symbol"] for one in everything}
    assert [one["symbol"] for one in (await client.get("/api/v1/symbols", params={"q": "eTh"})).json()] == ["ethusdt"]
    assert (await client.get("/api/v1/symbols", params={"q": "nothing"})).json() == []


async def test_a_symbol_that_is_not_latin(new_user: NewUser) -> None:
    user = await new_user()
    assert (await user.add("币安人生usdt", "2")).json()["Symbol"] == "币安人生usdt"


async def test_answers_are_careful_with_browsers(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/symbols", headers={"Origin": "https://evil.example"})
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "access-control-allow-origin" not in answer.headers
    allowed = await client.get("/api/v1/symbols", headers={"Origin": "https://portfolio.example"})
    assert allowed.headers["access-control-allow-origin"] == "https://portfolio.example"
    assert allowed.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/metrics", "/docs", "/openapi.json"])
async def test_what_every_service_has(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 200


async def test_the_rest_is_a_problem_document(client: httpx.AsyncClient) -> None:
    assert_problem(await client.get(f"/{unique()}"), 404)
    answer = await client.put(COINS)
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "POST, DELETE"
