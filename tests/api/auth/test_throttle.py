"""Failed logins slow down whoever makes them, and nobody else."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from auth_parts import PASSWORD, Auth

from api.auth.throttle import ACCOUNT, ADDRESS, STRANGER_TRIES, Failures, Limit, keys_of, own_wait_s, place_of, wait_s
from protos import auth_pb2

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
KEYS = keys_of("ada", "192.0.2.1")
Code = grpc.StatusCode


def failed(count: int, seconds_ago: float = 0) -> Failures:
    return Failures(count, NOW - timedelta(seconds=seconds_ago))


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(failed(9), 0), (failed(10), 1), (failed(11), 2), (failed(15), 32), (failed(16), 45), (failed(10**6), 45),
     (failed(11, 1.5), 0.5), (failed(11, 2), 0), (failed(10**6, 3601), 0)],
)  # fmt: skip
def test_each_further_failure_costs_more(failures: Failures, seconds: float) -> None:
    assert own_wait_s(KEYS, {KEYS.both: failures}, NOW) == pytest.approx(seconds)


def tries_in_an_hour(limit: Limit) -> int:
    """Of an attacker who tries as soon as it is allowed."""
    tries, now, end = 0, NOW, NOW + timedelta(hours=1)
    while now < end:
        tries += 1
        now += timedelta(seconds=own_wait_s(KEYS, {KEYS.both: Failures(tries, now)}, now))
    return tries


def test_an_hour_has_fewer_than_a_hundred_tries() -> None:
    assert tries_in_an_hour(ACCOUNT) < 100


def test_what_strangers_did_does_not_slow_a_known_place() -> None:
    attacked = {KEYS.account: failed(1000), KEYS.address: failed(1000)}
    assert own_wait_s(KEYS, attacked, NOW) == 0


def test_a_new_address_has_tries_of_its_own_however_busy_the_account_is() -> None:
    attacked = {KEYS.account: failed(1000)}
    for own in range(STRANGER_TRIES):
        assert wait_s(KEYS, {**attacked, KEYS.both: failed(own)}, NOW) == 0
    assert wait_s(KEYS, {**attacked, KEYS.both: failed(STRANGER_TRIES)}, NOW) == 45


def test_an_address_that_tries_many_names_is_slowed_for_all() -> None:
    assert wait_s(KEYS, {KEYS.address: failed(ADDRESS.free + 5)}, NOW) == 5


@pytest.mark.parametrize(("one", "other", "same"), [
    ("2001:db8::1", "2001:db8::ffff:2", True), ("2001:db8::1", "2001:db8:0:1::1", False),
    ("::ffff:192.0.2.1", "192.0.2.1", True), ("192.0.2.1", "192.0.2.2", False), ("", "unknown", False),
])  # fmt: skip
def test_what_is_one_place(one: str, other: str, same: bool) -> None:
    assert (place_of(one) == place_of(other)) is same


# Over gRPC

HOME, ELSEWHERE = "192.0.2.1", "198.51.100.7"


async def registered(auth: Auth, address: str = HOME) -> str:
    name = f"user-{uuid.uuid4()}"
    caller = auth_pb2.Caller(address=address)
    await auth.stub.Register(auth_pb2.RegisterRequest(name=name, password=PASSWORD, caller=caller))
    return name


async def login(
    auth: Auth, name: str, password: str, address: str, refresh_token: str = ""
) -> auth_pb2.TokenResponse | grpc.StatusCode:
    caller = auth_pb2.Caller(address=address, refresh_token=refresh_token)
    try:
        return await auth.stub.Login(auth_pb2.LoginRequest(name=name, password=password, caller=caller))
    except grpc.aio.AioRpcError as error:
        if error.code() == Code.RESOURCE_EXHAUSTED:
            wait = dict(error.trailing_metadata() or ())["retry-after"]
            assert 0 < int(wait) <= 45
        return error.code()


async def attack(auth: Auth, name: str, address: str, tries: int = 30) -> list[object]:
    return [await login(auth, name, f"wrong password {n}", address) for n in range(tries)]


async def test_an_attacker_is_slowed_and_the_owner_is_not(auth: Auth) -> None:
    name = await registered(auth)
    codes = await attack(auth, name, ELSEWHERE)
    # The first are free, the next two wait (the clock of the tests moves), the others are refused.
    assert codes == [Code.UNAUTHENTICATED] * 12 + [Code.RESOURCE_EXHAUSTED] * 18
    assert isinstance(await login(auth, name, PASSWORD, HOME), auth_pb2.TokenResponse)
    assert await login(auth, name, PASSWORD, ELSEWHERE) == Code.RESOURCE_EXHAUSTED
    assert isinstance(await login(auth, name, PASSWORD, "203.0.113.9"), auth_pb2.TokenResponse)


async def test_whoever_waits_gets_in_again(auth: Auth) -> None:
    name = await registered(auth)
    await attack(auth, name, HOME)
    assert await login(auth, name, PASSWORD, HOME) == Code.RESOURCE_EXHAUSTED
    auth.clock.forward(45)
    assert isinstance(await login(auth, name, PASSWORD, HOME), auth_pb2.TokenResponse)
    assert await login(auth, name, "wrong again", HOME) == Code.UNAUTHENTICATED


async def test_the_owners_device_gets_in_from_the_attackers_address(auth: Auth) -> None:
    name = await registered(auth)
    session = await login(auth, name, PASSWORD, HOME)
    assert isinstance(session, auth_pb2.TokenResponse)
    await attack(auth, name, ELSEWHERE)
    assert isinstance(await login(auth, name, PASSWORD, ELSEWHERE, session.refresh_token), auth_pb2.TokenResponse)
    assert await login(auth, await registered(auth), "wrong", ELSEWHERE, session.refresh_token) == Code.UNAUTHENTICATED


async def test_unknown_names_are_slowed_alike(auth: Auth) -> None:
    assert await attack(auth, f"nobody-{uuid.uuid4()}", ELSEWHERE) == await attack(
        auth, await registered(auth), "198.51.100.8"
    )


async def test_many_names_from_one_address(auth: Auth) -> None:
    codes = [await login(auth, f"nobody-{n}", "wrong password", "198.51.100.9") for n in range(120)]
    assert codes[:100] == [Code.UNAUTHENTICATED] * 100
    assert codes[-10:] == [Code.RESOURCE_EXHAUSTED] * 10
    name = await registered(auth, "198.51.100.9")
    assert isinstance(await login(auth, name, PASSWORD, "198.51.100.9"), auth_pb2.TokenResponse)


async def test_who_has_been_at_an_address_cannot_be_told(auth: Auth) -> None:
    name, nobody, here = await registered(auth, "198.51.100.10"), f"nobody-{uuid.uuid4()}", "198.51.100.10"
    for one in (name, nobody):
        await attack(auth, one, "198.51.100.11")
    # However busy the account is, and then the address:
    assert await attack(auth, name, here, 8) == await attack(auth, nobody, here, 8)
    for n in range(110):
        await login(auth, f"nobody-{n}-{uuid.uuid4()}", "wrong password", here)
    answers = [await login(auth, one, "wrong password", here) for one in (name, nobody)]
    assert answers == [Code.RESOURCE_EXHAUSTED] * 2
    assert isinstance(await login(auth, name, PASSWORD, here), auth_pb2.TokenResponse)


async def test_a_try_that_comes_too_early_takes_as_long_whoever_has_the_name(
    auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, checked, real = await registered(auth), [], auth.hasher.matches

    async def matches(password: str, hashed: str | None, waited_s: float = 0.0) -> bool:
        checked.append(hashed)
        return await real(password, hashed, waited_s)

    names = name, f"nobody-{uuid.uuid4()}"
    for one in names:
        await attack(auth, one, ELSEWHERE)
        await attack(auth, one, HOME, STRANGER_TRIES)
    monkeypatch.setattr(auth.hasher, "matches", matches)
    assert [await login(auth, one, "wrong password", HOME) for one in names] == [Code.RESOURCE_EXHAUSTED] * 2
    assert [hashed is None for hashed in checked] == [False, True]


async def test_the_right_password_too_early_opens_known_places_only(auth: Auth) -> None:
    name = await registered(auth)
    await attack(auth, name, ELSEWHERE)
    for address in (HOME, "203.0.113.9"):
        await attack(auth, name, address, STRANGER_TRIES)
    assert await login(auth, name, PASSWORD, "203.0.113.9") == Code.RESOURCE_EXHAUSTED
    assert isinstance(await login(auth, name, PASSWORD, HOME), auth_pb2.TokenResponse)


async def test_tries_at_the_same_time_are_counted_before_they_are_checked(auth: Auth) -> None:
    name = await registered(auth)
    tries = (login(auth, name, f"wrong password {n}", ELSEWHERE) for n in range(40))
    codes = await asyncio.gather(*tries)
    assert codes.count(Code.UNAUTHENTICATED) <= 12


async def test_what_is_over_is_forgotten(auth: Auth) -> None:
    name = await registered(auth)
    await attack(auth, name, ELSEWHERE)
    auth.clock.forward(3601)
    await auth.service.forget_expired()
    assert (await attack(auth, name, ELSEWHERE)).count(Code.UNAUTHENTICATED) == 12


async def test_other_spellings_of_an_unknown_name_are_one_name_too(auth: Auth) -> None:
    composed, decomposed = f"nobody-{uuid.uuid4()}-\u00e9", ""
    decomposed = composed.replace("\u00e9", "e\u0301")
    await attack(auth, composed, ELSEWHERE)
    # As it is for a name that somebody has: else it could be told which names are.
    assert await login(auth, decomposed, "wrong password", ELSEWHERE) == Code.RESOURCE_EXHAUSTED


async def test_the_networks_of_one_site_share_their_tries(auth: Auth) -> None:
    name = await registered(auth)
    await attack(auth, name, ELSEWHERE)
    codes = [await login(auth, name, "wrong password", f"2001:db8:7:{n:x}::1") for n in range(10)]
    assert codes == [Code.UNAUTHENTICATED] * STRANGER_TRIES + [Code.RESOURCE_EXHAUSTED] * (10 - STRANGER_TRIES)
    assert isinstance(await login(auth, name, PASSWORD, "2001:db8:8:1::1"), auth_pb2.TokenResponse)


async def test_a_wait_before_the_check_is_part_of_the_wait_for_it(auth: Auth) -> None:
    name = await registered(auth)
    await attack(auth, name, ELSEWHERE, 11)
    auth.hasher._max_wait_s = 2.0  # as long as the next try has to wait
    assert await login(auth, name, PASSWORD, ELSEWHERE) == Code.RESOURCE_EXHAUSTED


async def test_a_login_that_meets_a_deletion_is_no_fault(auth: Auth) -> None:
    await auth.service._throttle.know(uuid.uuid4(), place_of(HOME))
