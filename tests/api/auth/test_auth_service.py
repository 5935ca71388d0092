"""auth.v1.AuthService through a real channel, on a real database."""

import asyncio
import uuid
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from auth_parts import PASSWORD, REFRESH_TTL_S, SECRET, Auth
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError

from api.auth.repository import families, tokens, users
from api.auth.rotation import RefreshTokens
from protos import auth_pb2

Code = grpc.StatusCode


def new_name() -> str:
    return f"user-{uuid.uuid4()}"


async def registered(auth: Auth, name: str | None = None) -> str:
    name = name or new_name()
    await auth.stub.Register(auth_pb2.RegisterRequest(name=name, password=PASSWORD))
    return name


async def logged_in(auth: Auth) -> auth_pb2.TokenResponse:
    return await login(auth, await registered(auth))


async def login(auth: Auth, name: str, password: str = PASSWORD) -> auth_pb2.TokenResponse:
    return await auth.stub.Login(auth_pb2.LoginRequest(name=name, password=password))


async def refresh(auth: Auth, token: str) -> auth_pb2.TokenResponse:
    return await auth.stub.RefreshToken(auth_pb2.RefreshTokenRequest(refresh_token=token))


async def logout(auth: Auth, token: str) -> None:
    await auth.stub.Logout(auth_pb2.LogoutRequest(refresh_token=token))


async def refused(call: Awaitable[Any], code: grpc.StatusCode) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() == code, caught.value.details()
    details = caught.value.details()
    assert details
    return details


async def live_tokens(auth: Auth) -> int:
    """Unused tokens of families that are not revoked."""
    query = select(func.count()).select_from(tokens.join(families))
    query = query.where(tokens.c.used_at.is_(None), families.c.revoked_at.is_(None))
    async with auth.database.transaction() as connection:
        return int((await connection.execute(query)).scalar_one())


# Register


async def test_register_gives_the_id_that_tokens_carry(auth: Auth) -> None:
    name = new_name()
    made = await auth.stub.Register(auth_pb2.RegisterRequest(name=name, password=PASSWORD))
    claims = auth.tokens.verify((await login(auth, name)).access_token)
    assert (claims.sub, claims.name) == (made.user_id, name)


async def test_a_taken_name_is_refused(auth: Auth) -> None:
    name = await registered(auth)
    await refused(registered(auth, name), Code.ALREADY_EXISTS)


async def test_names_differ_by_case_and_not_by_composition(auth: Auth) -> None:
    name = new_name()
    await registered(auth, name + "é")
    await registered(auth, name + "É")
    await refused(registered(auth, name + "e\u0301"), Code.ALREADY_EXISTS)
    await login(auth, name + "e\u0301")


async def test_parallel_registrations_of_one_name_hash_one_password(
    auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, hashed, real = new_name(), [], auth.hasher.hash

    async def counted(password: str) -> str:
        hashed.append(password)
        return await real(password)

    monkeypatch.setattr(auth.hasher, "hash", counted)
    results = await asyncio.gather(*(registered(auth, name) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, str) for result in results) == 1
    assert {error.code() for error in results if isinstance(error, grpc.aio.AioRpcError)} == {Code.ALREADY_EXISTS}
    assert len(hashed) == 1


@pytest.mark.parametrize(
    ("name", "password", "field"),
    [
        ("", PASSWORD, "name"),
        ("x" * 65, PASSWORD, "name"),
        (" ada", PASSWORD, "name"),
        ("ada\u00a0", PASSWORD, "name"),
        ("a\x00da", PASSWORD, "name"),
        ("a\nda", PASSWORD, "name"),
        ("a\u202eda", PASSWORD, "name"),
        ("ada", "", "password"),
        ("ada", "1234567", "password"),
        ("ada", "x" * 129, "password"),
    ],
)
async def test_bad_input_names_its_field(auth: Auth, name: str, password: str, field: str) -> None:
    call = auth.stub.Register(auth_pb2.RegisterRequest(name=name, password=password))
    assert (await refused(call, Code.INVALID_ARGUMENT)).startswith(f"{field}:")


@pytest.mark.parametrize("name", ["x", "李" * 64, "Ада Лавлейс", "'; DROP TABLE users; --"])
async def test_other_names_are_taken(auth: Auth, name: str) -> None:
    await registered(auth, name)
    assert auth.tokens.verify((await login(auth, name)).access_token).name == name


@pytest.mark.parametrize("password", ["x" * 128, "пароль\x00пароль", "  spaces  ", "🔑" * 128, "mypassword123"])
async def test_any_password_works_whole(auth: Auth, password: str) -> None:
    name = new_name()
    await auth.stub.Register(auth_pb2.RegisterRequest(name=name, password=password))
    await login(auth, name, password)
    await refused(login(auth, name, password[:-1]), Code.UNAUTHENTICATED)
    await refused(login(auth, name, password[:-1] + "y"), Code.UNAUTHENTICATED)


async def test_only_hashes_are_stored(auth: Auth) -> None:
    session = await logged_in(auth)
    async with auth.database.transaction() as connection:
        hashes = (await connection.execute(select(users.c.password_hash))).scalars().all()
        kept = (await connection.execute(select(tokens.c.hash))).scalars().all()
    assert all(one.startswith("$2b$") for one in hashes)
    assert RefreshTokens.hash(session.refresh_token) in kept
    assert session.refresh_token.encode() not in kept


# Login


async def test_wrong_name_and_wrong_password_are_told_the_same(auth: Auth) -> None:
    name = await registered(auth)
    answers = {
        await refused(login(auth, name, "not the password"), Code.UNAUTHENTICATED),
        await refused(login(auth, new_name()), Code.UNAUTHENTICATED),
        await refused(login(auth, "a\x00b"), Code.UNAUTHENTICATED),
        await refused(login(auth, ""), Code.UNAUTHENTICATED),
        await refused(login(auth, name, ""), Code.UNAUTHENTICATED),
        await refused(login(auth, name, "x" * 10_000), Code.UNAUTHENTICATED),
    }
    assert answers == {"wrong name or password"}


async def test_the_session_says_when_it_ends(auth: Auth) -> None:
    session = await logged_in(auth)
    assert session.access_expires_at_ms == auth.tokens.verify(session.access_token).exp * 1000
    assert session.refresh_expires_at_ms == int(auth.clock.now.timestamp() * 1000) + REFRESH_TTL_S * 1000


# Refresh


async def test_refresh_rotates(auth: Auth) -> None:
    first = await logged_in(auth)
    second = await refresh(auth, first.refresh_token)
    third = await refresh(auth, second.refresh_token)
    assert len({first.refresh_token, second.refresh_token, third.refresh_token}) == 3
    assert auth.tokens.verify(third.access_token).sub == auth.tokens.verify(first.access_token).sub


async def test_a_lost_answer_is_given_again(auth: Auth) -> None:
    first = await logged_in(auth)
    second = await refresh(auth, first.refresh_token)
    auth.clock.forward(10)
    again = await refresh(auth, first.refresh_token)
    assert again.refresh_token == second.refresh_token
    assert again.refresh_expires_at_ms == second.refresh_expires_at_ms
    await refresh(auth, again.refresh_token)


async def test_grace_ends_after_ten_seconds_and_takes_the_family_along(auth: Auth) -> None:
    first = await logged_in(auth)
    second = await refresh(auth, first.refresh_token)
    auth.clock.forward(10.001)
    await refused(refresh(auth, first.refresh_token), Code.UNAUTHENTICATED)
    await refused(refresh(auth, second.refresh_token), Code.UNAUTHENTICATED)


async def test_grace_ends_when_the_successor_is_used(auth: Auth) -> None:
    first = await logged_in(auth)
    second = await refresh(auth, first.refresh_token)
    third = await refresh(auth, second.refresh_token)
    await refused(refresh(auth, first.refresh_token), Code.UNAUTHENTICATED)
    await refused(refresh(auth, third.refresh_token), Code.UNAUTHENTICATED)


async def test_revoking_a_family_leaves_the_users_other_sessions(auth: Auth) -> None:
    name = await registered(auth)
    stolen, other = await login(auth, name), await login(auth, name)
    await refresh(auth, stolen.refresh_token)
    auth.clock.forward(11)
    await refused(refresh(auth, stolen.refresh_token), Code.UNAUTHENTICATED)
    await refresh(auth, other.refresh_token)


async def test_twenty_parallel_refreshes_leave_one_live_successor(auth: Auth) -> None:
    first = await logged_in(auth)
    before = await live_tokens(auth)
    results = await asyncio.gather(*(refresh(auth, first.refresh_token) for _ in range(20)))
    assert len({result.refresh_token for result in results}) == 1
    assert await live_tokens(auth) == before
    await refresh(auth, results[0].refresh_token)


async def test_parallel_refreshes_of_a_stale_token_leave_none(auth: Auth) -> None:
    first = await logged_in(auth)
    second = await refresh(auth, first.refresh_token)
    auth.clock.forward(11)
    calls = [refresh(auth, token) for token in (first.refresh_token, second.refresh_token) for _ in range(10)]
    await asyncio.gather(*calls, return_exceptions=True)
    await refused(refresh(auth, second.refresh_token), Code.UNAUTHENTICATED)
    await refused(refresh(auth, RefreshTokens(SECRET).successor(second.refresh_token)), Code.UNAUTHENTICATED)


async def test_an_expired_token_is_refused(auth: Auth) -> None:
    session = await logged_in(auth)
    auth.clock.forward(REFRESH_TTL_S)
    await refused(refresh(auth, session.refresh_token), Code.UNAUTHENTICATED)


@pytest.mark.parametrize("token", ["", "unknown", "\x00", "x" * 10_000])
async def test_an_unknown_token_is_refused(auth: Auth, token: str) -> None:
    await refused(refresh(auth, token), Code.UNAUTHENTICATED)


async def test_an_access_token_is_no_refresh_token(auth: Auth) -> None:
    await refused(refresh(auth, (await logged_in(auth)).access_token), Code.UNAUTHENTICATED)


# Logout


async def test_logout_ends_the_session(auth: Auth) -> None:
    first = await logged_in(auth)
    second = await refresh(auth, first.refresh_token)
    await logout(auth, second.refresh_token)
    await refused(refresh(auth, second.refresh_token), Code.UNAUTHENTICATED)
    await refused(refresh(auth, first.refresh_token), Code.UNAUTHENTICATED)


async def test_logout_works_with_a_used_token_too(auth: Auth) -> None:
    first = await logged_in(auth)
    second = await refresh(auth, first.refresh_token)
    await logout(auth, first.refresh_token)
    await refused(refresh(auth, second.refresh_token), Code.UNAUTHENTICATED)


async def test_logout_of_an_unknown_token_is_no_error(auth: Auth) -> None:
    for token in ("", "unknown"):
        await logout(auth, token)


async def test_expired_sessions_are_forgotten(auth: Auth) -> None:
    old = await logged_in(auth)
    auth.clock.forward(REFRESH_TTL_S / 2)
    young = await logged_in(auth)
    auth.clock.forward(REFRESH_TTL_S / 2 + 1)
    await auth.service.forget_expired()
    await refused(refresh(auth, old.refresh_token), Code.UNAUTHENTICATED)
    await refresh(auth, young.refresh_token)


async def test_a_caller_of_control_characters_is_logged_in(auth: Auth) -> None:
    caller = auth_pb2.Caller(address="192.0.2.1\0", user_agent="a\0program\n")
    request = auth_pb2.LoginRequest(name=await registered(auth), password=PASSWORD, caller=caller)
    session = await auth.stub.Login(request)
    answer = await auth.stub.ListSessions(auth_pb2.ListSessionsRequest(access_token=session.access_token))
    assert [(one.address, one.user_agent) for one in answer.sessions] == [("192.0.2.1", "aprogram")]


async def test_what_the_database_says_holds_no_values(auth: Auth) -> None:
    with pytest.raises(DBAPIError) as caught:
        async with auth.database.transaction() as connection:
            await connection.execute(text("SELECT 1 / (length(:secret) - 6)"), {"secret": "s3cret"})
    assert "s3cret" not in str(caught.value)


async def test_a_flood_of_logins_of_one_name_does_not_keep_others_from_the_database(auth: Auth) -> None:
    token, name, codes = (await logged_in(auth)).refresh_token, new_name(), set()

    async def try_on(number: int) -> None:
        caller = auth_pb2.Caller(address=f"10.0.{number // 250}.{number % 250}")
        request = auth_pb2.LoginRequest(name=name, password="a wrong password", caller=caller)
        while True:
            try:
                await auth.stub.Login(request)
            except grpc.aio.AioRpcError as error:
                codes.add(error.code())

    flood = [asyncio.create_task(try_on(number)) for number in range(600)]
    end = asyncio.get_running_loop().time() + 5  # longer than a caller waits for a connection
    while asyncio.get_running_loop().time() < end:
        token = (await refresh(auth, token)).refresh_token
    for one in flood:
        one.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    assert codes <= {Code.UNAUTHENTICATED, Code.RESOURCE_EXHAUSTED}
