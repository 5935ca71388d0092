"""`Idempotency-Key` of POST /profile/coins: done once, answered the same."""

import asyncio
import uuid
from typing import Any

import httpx
import pytest
from profile_parts import COINS, Bff, NewUser, User, assert_problem


async def add(user: User, key: str, quantity: str = "1.5", symbol: str = "btcusdt") -> httpx.Response:
    headers = {**user.bearer, "Idempotency-Key": key}
    return await user.client.post(COINS, json={"symbol": symbol, "quantity": quantity}, headers=headers)


async def test_sent_again_it_is_answered_the_same_and_done_once(new_user: NewUser) -> None:
    user, key = await new_user(), str(uuid.uuid4())
    first = await add(user, key)
    await user.add("btcusdt", "10")
    again = [await add(user, key), await add(user, f'"{key}"'), await add(user, key, "1.50", "BTCusdt")]
    assert {(one.status_code, one.text) for one in again} == {(200, first.text)}
    assert await user.held() == {"btcusdt": "11.5"}


async def test_another_key_is_another_request(new_user: NewUser) -> None:
    user = await new_user()
    for _ in range(3):
        assert (await add(user, str(uuid.uuid4()))).status_code == 200
    assert await user.held() == {"btcusdt": "4.5"}


@pytest.mark.parametrize("other", [{"quantity": "2"}, {"symbol": "ethusdt"}])
async def test_the_same_key_with_another_body_is_refused(new_user: NewUser, other: dict[str, Any]) -> None:
    user, key = await new_user(), str(uuid.uuid4())
    await add(user, key)
    assert_problem(await add(user, key, **other), 422)
    assert await user.held() == {"btcusdt": "1.5"}


async def test_fifty_at_the_same_time_are_done_once(new_user: NewUser) -> None:
    user, key = await new_user(), str(uuid.uuid4())
    answers = await asyncio.gather(*(add(user, key) for _ in range(50)))
    assert {(one.status_code, one.text) for one in answers} == {(200, answers[0].text)}
    assert await user.held() == {"btcusdt": "1.5"}


async def test_what_was_refused_may_be_tried_again(new_user: NewUser) -> None:
    user, key = await new_user(), str(uuid.uuid4())
    assert_problem(await add(user, key, "-1"), 422)
    await user.add("btcusdt", "3")
    assert (await add(user, key, "-1")).status_code == 200
    assert (await add(user, key, "-1")).status_code == 200
    assert await user.held() == {"btcusdt": "2"}


async def test_keys_are_a_users_own(new_user: NewUser) -> None:
    one, other, key = await new_user(), await new_user(), str(uuid.uuid4())
    assert (await add(one, key)).json()["UserID"] == one.id
    assert (await add(other, key)).json()["UserID"] == other.id


async def test_a_key_lives_for_a_day(bff: Bff, new_user: NewUser) -> None:
    user, key = await new_user(), str(uuid.uuid4())
    await add(user, key)
    left = bff.sql("SELECT expires_at - now() FROM idempotency_keys WHERE user_id = %s", user.id)[0][0]
    assert 86_000 < left.total_seconds() <= 86_400
    bff.sql("UPDATE idempotency_keys SET expires_at = now() WHERE user_id = %s", user.id)
    assert (await add(user, key, "7")).json()["Quantity"] == "8.5"
    assert (await add(user, key, "7")).json()["Quantity"] == "8.5"


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "tab\there"])
async def test_a_key_that_is_none(new_user: NewUser, key: str) -> None:
    user = await new_user()
    assert_problem(await add(user, key), 422)
    assert await user.held() == {}


async def test_without_a_profile_no_key_is_kept(bff: Bff, new_user: NewUser) -> None:
    user, key = await new_user(), str(uuid.uuid4())
    bff.sql("DELETE FROM profiles WHERE id = %s", user.id)
    assert_problem(await add(user, key), 404)
    assert bff.sql("SELECT count(*) FROM idempotency_keys WHERE user_id = %s", user.id) == [(0,)]
