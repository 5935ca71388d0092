"""What the owner of an access token can do: sessions, password, deletion; over gRPC."""

import asyncio
import uuid
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import grpc
import pytest
from auth_parts import PASSWORD, Auth
from sqlalchemy import text

from api.auth.account_repository import AccountRepository
from api.auth.repository import MAX_SESSIONS, families
from protos import auth_pb2

Code = grpc.StatusCode
NEW = "another password of mine"


async def registered(auth: Auth) -> str:
    name = f"user-{uuid.uuid4()}"
    await auth.stub.Register(auth_pb2.RegisterRequest(name=name, password=PASSWORD))
    return name


async def login(auth: Auth, name: str, password: str = PASSWORD, **caller: str) -> auth_pb2.TokenResponse:
    request = auth_pb2.LoginRequest(name=name, password=password, caller=auth_pb2.Caller(**caller))
    return await auth.stub.Login(request)


async def refresh(auth: Auth, session: auth_pb2.TokenResponse) -> auth_pb2.TokenResponse:
    return await auth.stub.RefreshToken(auth_pb2.RefreshTokenRequest(refresh_token=session.refresh_token))


async def sessions(auth: Auth, token: str) -> list[auth_pb2.Session]:
    return list((await auth.stub.ListSessions(auth_pb2.ListSessionsRequest(access_token=token))).sessions)


async def revoke(auth: Auth, token: str, session_id: str = "") -> int:
    request = auth_pb2.RevokeSessionsRequest(access_token=token, session_id=session_id)
    return int((await auth.stub.RevokeSessions(request)).revoked)


async def change(auth: Auth, token: str, current: str = PASSWORD, new: str = NEW) -> None:
    request = auth_pb2.ChangePasswordRequest(access_token=token, current_password=current, new_password=new)
    await auth.stub.ChangePassword(request)


async def confirm(auth: Auth, token: str, password: str = "") -> str:
    request = auth_pb2.ConfirmDeletionRequest(access_token=token, password=password)
    return str((await auth.stub.ConfirmDeletion(request)).ticket)


async def delete(auth: Auth, ticket: str) -> None:
    await auth.stub.DeleteAccount(auth_pb2.DeleteAccountRequest(ticket=ticket))


async def refused(call: Awaitable[Any], code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() == code, caught.value.details()


# Sessions


async def test_an_account_has_a_hundred_sessions_at_the_most(auth: Auth) -> None:
    """Also when many log in at the same time; whoever is deleted meanwhile is deleted."""
    user = await auth.repository.find_user(await registered(auth))
    assert user

    async def open_session() -> uuid.UUID | None:
        auth.clock.forward(1)
        at = auth.clock()
        return await auth.repository.open_family(user, uuid.uuid4().bytes, at, at + timedelta(hours=1), "", "")

    async def live() -> set[uuid.UUID]:
        return {one.id for one in await AccountRepository(auth.database).sessions(user.id, auth.clock())}

    first = [await open_session() for _ in range(MAX_SESSIONS)]
    auth.clock.forward(1)
    async with auth.database.transaction() as connection:  # the first of all is in use
        await connection.execute(families.update().where(families.c.id == first[0]).values(last_used_at=auth.clock()))
    assert len(await live()) == MAX_SESSIONS
    more = await asyncio.gather(*(open_session() for _ in range(20)))
    assert await live() == {*more, first[0], *first[21:]}
    deleted, *_ = await asyncio.gather(
        AccountRepository(auth.database).delete(user.id), *(open_session() for _ in range(20))
    )
    assert deleted
    assert await live() == set()


async def test_forgetting_what_ran_out_is_in_nobodys_way(auth: Auth) -> None:
    """It ran into deadlocks with refreshes and deletions, which were told that the database is away."""
    lifetime = timedelta(minutes=1)
    for _ in range(5):
        user = await auth.repository.find_user(await registered(auth))
        assert user
        at, opened = auth.clock(), [uuid.uuid4().bytes for _ in range(60)]
        for token in opened:
            assert await auth.repository.open_family(user, token, at, at + lifetime, "", "")
        auth.clock.forward(61)
        now = auth.clock()
        refreshes = (auth.repository.rotate(token, uuid.uuid4().bytes, at, now + lifetime) for token in opened[::4])
        forgetting = (auth.repository.delete_expired(now) for _ in range(4))
        deletion = AccountRepository(auth.database).delete(user.id)
        *_, deleted = await asyncio.gather(*refreshes, *forgetting, deletion)
        assert deleted


async def test_sessions_tell_where_and_when(auth: Auth) -> None:
    name = await registered(auth)
    first = await login(auth, name, address="192.0.2.7", user_agent="curl/8")
    auth.clock.forward(60)
    second = await login(auth, name)
    auth.clock.forward(60)
    await refresh(auth, first)
    found = await sessions(auth, second.access_token)
    assert [(one.current, one.address, one.user_agent) for one in found] == [
        (True, "127.0.0.1", ""),
        (False, "192.0.2.7", "curl/8"),
    ]
    assert found[1].last_used_at_ms - found[1].created_at_ms == 120_000
    assert found[0].last_used_at_ms == found[0].created_at_ms
    assert found[0].expires_at_ms == second.refresh_expires_at_ms


async def test_one_session_is_ended_and_the_others_stay(auth: Auth) -> None:
    name = await registered(auth)
    one, other = await login(auth, name), await login(auth, name)
    gone = next(session.id for session in await sessions(auth, other.access_token) if not session.current)
    assert await revoke(auth, other.access_token, gone) == 1
    await refused(refresh(auth, one), Code.UNAUTHENTICATED)
    await refused(sessions(auth, one.access_token), Code.UNAUTHENTICATED)
    await refused(revoke(auth, other.access_token, gone), Code.NOT_FOUND)
    await refresh(auth, other)


async def test_all_sessions_are_ended(auth: Auth) -> None:
    name = await registered(auth)
    all_of_them = [await login(auth, name) for _ in range(3)]
    assert await revoke(auth, all_of_them[0].access_token) == 3
    for session in all_of_them:
        await refused(refresh(auth, session), Code.UNAUTHENTICATED)


async def test_no_user_sees_or_ends_anothers_sessions(auth: Auth) -> None:
    mine = await login(auth, await registered(auth))
    others = await login(auth, await registered(auth))
    foreign = (await sessions(auth, others.access_token))[0].id
    assert foreign not in {one.id for one in await sessions(auth, mine.access_token)}
    await refused(revoke(auth, mine.access_token, foreign), Code.NOT_FOUND)
    assert await revoke(auth, mine.access_token) == 1
    await refresh(auth, others)


@pytest.mark.parametrize("session_id", ["x", "3dc9950c-49d3-4977-bf48-a243b4925f7c", "'; --", "x" * 1000])
async def test_an_unknown_session_is_not_found(auth: Auth, session_id: str) -> None:
    token = (await login(auth, await registered(auth))).access_token
    await refused(revoke(auth, token, session_id), Code.NOT_FOUND)


@pytest.mark.parametrize("token", ["", "x.y.z", "\x00"])
async def test_without_a_good_token(auth: Auth, token: str) -> None:
    for call in (sessions(auth, token), revoke(auth, token), change(auth, token), confirm(auth, token)):
        await refused(call, Code.UNAUTHENTICATED)
    await refused(delete(auth, token), Code.UNAUTHENTICATED)


# Password


async def test_a_new_password_ends_the_other_sessions(auth: Auth) -> None:
    name = await registered(auth)
    own, other = await login(auth, name), await login(auth, name)
    await change(auth, own.access_token)
    await refused(refresh(auth, other), Code.UNAUTHENTICATED)
    await refresh(auth, own)
    await refused(login(auth, name), Code.UNAUTHENTICATED)
    await login(auth, name, NEW)


async def test_the_present_password_is_needed_and_the_next_one_checked(auth: Auth) -> None:
    name = await registered(auth)
    token = (await login(auth, name)).access_token
    await refused(change(auth, token, current="not the password"), Code.PERMISSION_DENIED)
    for bad in ("short", "x" * 129, "password123"):
        await refused(change(auth, token, new=bad), Code.INVALID_ARGUMENT)
    await login(auth, name)


async def test_guessing_the_present_password_is_slowed(auth: Auth) -> None:
    token = (await login(auth, await registered(auth))).access_token
    codes = []
    for n in range(15):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await change(auth, token, current=f"wrong password {n}")
        codes.append(caught.value.code())
    assert codes == [Code.PERMISSION_DENIED] * 12 + [Code.RESOURCE_EXHAUSTED] * 3


async def test_of_two_changes_at_the_same_time_one_counts(auth: Auth) -> None:
    name = await registered(auth)
    token = (await login(auth, name)).access_token
    results = await asyncio.gather(*(change(auth, token, new=f"{NEW} {n}") for n in range(4)), return_exceptions=True)
    assert results.count(None) == 1
    await login(auth, name, f"{NEW} {results.index(None)}")


async def test_a_login_that_began_before_the_change_opens_no_session(auth: Auth) -> None:
    name = await registered(auth)
    token = (await login(auth, name)).access_token
    user = await auth.repository.find_user(name)
    assert user
    await change(auth, token)
    now = auth.clock.now
    assert await auth.repository.open_family(user, b"hash", now, now, "", "") is None


# Deletion


async def rows_of(auth: Auth, user_id: str) -> int:
    async with auth.database.transaction() as connection:
        tables = ("users WHERE id", "refresh_families WHERE user_id", "known_places WHERE user_id")
        counts = [
            (await connection.execute(text(f"SELECT count(*) FROM {one} = :id"), {"id": user_id})).scalar_one()
            for one in tables
        ]
    return sum(counts)


async def test_a_deleted_account_leaves_nothing(auth: Auth) -> None:
    name = await registered(auth)
    session = await login(auth, name)
    user_id = auth.tokens.verify(session.access_token).sub
    assert await rows_of(auth, user_id) == 3
    ticket = await confirm(auth, session.access_token)
    await login(auth, name)  # a ticket alone changes nothing
    for _ in range(2):
        await delete(auth, ticket)
    assert await rows_of(auth, user_id) == 0
    await refused(login(auth, name), Code.UNAUTHENTICATED)
    await refused(refresh(auth, session), Code.UNAUTHENTICATED)
    await refused(confirm(auth, session.access_token), Code.UNAUTHENTICATED)
    await auth.stub.Register(auth_pb2.RegisterRequest(name=name, password=PASSWORD))
    await delete(auth, ticket)
    await login(auth, name)


async def test_long_after_the_login_the_password_is_needed(auth: Auth) -> None:
    token = (await login(auth, await registered(auth))).access_token
    auth.clock.forward(15 * 60 + 1)
    await refused(confirm(auth, token), Code.PERMISSION_DENIED)
    await refused(confirm(auth, token, "not the password"), Code.PERMISSION_DENIED)
    await delete(auth, await confirm(auth, token, PASSWORD))


async def test_an_access_token_is_no_ticket_and_a_ticket_no_access_token(auth: Auth) -> None:
    token = (await login(auth, await registered(auth))).access_token
    ticket = await confirm(auth, token)
    await refused(delete(auth, token), Code.UNAUTHENTICATED)
    await refused(sessions(auth, ticket), Code.UNAUTHENTICATED)
