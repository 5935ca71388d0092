"""Users and refresh tokens in PostgreSQL (schema: infra/migrations/auth)."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth.database import Database
from api.auth.errors import NameTaken, Overloaded
from api.auth.rotation import StoredToken, Verdict, judge

MAX_SESSIONS = 100  # live ones of an account

metadata = sa.MetaData()
_time = sa.DateTime(timezone=True)
users = sa.Table(
    "users",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("password_hash", sa.Text, nullable=False),
    sa.Column("created_at", _time, nullable=False),
)
families = sa.Table(
    "refresh_families",
    metadata,
    sa.Column("id", sa.Uuid, primary_key=True),
    sa.Column("user_id", sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("created_at", _time, nullable=False),
    sa.Column("expires_at", _time, nullable=False, index=True),
    sa.Column("revoked_at", _time),
    sa.Column("last_used_at", _time, nullable=False),
    sa.Column("address", sa.Text, nullable=False, server_default=""),
    sa.Column("user_agent", sa.Text, nullable=False, server_default=""),
)
tokens = sa.Table(
    "refresh_tokens",
    metadata,
    sa.Column("hash", sa.LargeBinary, primary_key=True),
    sa.Column("family_id", sa.ForeignKey("refresh_families.id", ondelete="CASCADE"), nullable=False, index=True),
    sa.Column("expires_at", _time, nullable=False, index=True),
    sa.Column("used_at", _time),
)


@dataclass(frozen=True)
class User:
    """An account."""

    id: uuid.UUID
    name: str
    password_hash: str


@dataclass(frozen=True)
class Rotated:
    """Whose token was exchanged, in which session, and until when the new one is good."""

    session_id: uuid.UUID
    user_id: uuid.UUID
    name: str
    expires_at: datetime


class AuthRepository:
    """Every method is one transaction and raises DatabaseAway when PostgreSQL does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ensure_room(self) -> None:
        """Raises Overloaded when a flood of logins would keep refreshes from the database."""
        if self._database.crowded:
            raise Overloaded("too many logins and registrations at once; try again shortly")

    async def add_user(self, user: User, now: datetime) -> None:
        """Raises NameTaken."""
        try:
            async with self._database.transaction() as connection:
                await connection.execute(
                    users.insert().values(id=user.id, name=user.name, password_hash=user.password_hash, created_at=now)
                )
        except IntegrityError as error:
            raise NameTaken("this name is taken") from error

    async def find_user(self, name: str) -> User | None:
        """The account of exactly this name."""
        async with self._database.transaction() as connection:
            columns = sa.select(users.c.id, users.c.name, users.c.password_hash)
            row = (await connection.execute(columns.where(users.c.name == name))).one_or_none()
        return None if row is None else User(row.id, row.name, row.password_hash)

    async def open_family(
        self, user: User, token: bytes, now: datetime, expires_at: datetime, address: str, user_agent: str
    ) -> uuid.UUID | None:
        """Start a family of refresh tokens with the hash of its first one; gives its id, which is the session's.

        Ends the sessions of the account that were not used for the longest time, where it has more than MAX_SESSIONS.
        None when the password has been changed, or the account deleted, since `user` was read.
        """
        family_id = uuid.uuid4()
        same = sa.select(users.c.id).where(users.c.id == user.id, users.c.password_hash == user.password_hash)
        row = {"id": family_id, "user_id": user.id, "created_at": now, "last_used_at": now, "expires_at": expires_at}
        async with self._database.transaction() as connection:
            # Logins of one account take turns, or each would miss the others' sessions.
            if (await connection.execute(same.with_for_update(key_share=True))).one_or_none() is None:
                return None
            await connection.execute(families.insert().values(**row, address=address, user_agent=user_agent))
            await connection.execute(tokens.insert().values(hash=token, family_id=family_id, expires_at=expires_at))
            used = sa.select(families.c.id).where(live(user.id, now), families.c.id != family_id)
            used = used.order_by(families.c.last_used_at.desc(), families.c.id)
            await revoke(connection, families.c.id.in_(used.offset(MAX_SESSIONS - 1)), now)
        return family_id

    async def rotate(self, token: bytes, successor: bytes, now: datetime, expires_at: datetime) -> Rotated | None:
        """Exchange a token for its successor (hashes of both), or None if it may not be; see `rotation.judge`."""
        async with self._database.transaction() as connection:
            family = await _lock_family(connection, token)
            if family is None:
                return None
            # Read in statements of their own, after the lock: they see what its last holder wrote.
            known = await _stored(connection, token)
            follower = await _stored(connection, successor)
            if known is None:
                return None
            match judge(known, follower, family.revoked_at is not None, now):
                case Verdict.ROTATE:
                    await _use_up(connection, family.id, token, successor, now, expires_at)
                    return Rotated(family.id, family.user_id, family.name, expires_at)
                case Verdict.REPEAT:
                    assert follower is not None
                    return Rotated(family.id, family.user_id, family.name, follower.expires_at)
                case Verdict.REVOKE:
                    await _revoke(connection, family.id, now)
            return None

    async def revoke_family(self, token: bytes, now: datetime) -> None:
        """End the family of a token, if there is one."""
        async with self._database.transaction() as connection:
            family = await _lock_family(connection, token)
            if family is not None:
                await _revoke(connection, family.id, now)

    async def delete_expired(self, now: datetime) -> int:
        """Forget tokens and families that have run out; gives the number of families.

        What somebody else holds is left for the next time: who waits for rows in an order of its own makes deadlocks.
        """
        spent = sa.select(tokens.c.hash).where(tokens.c.expires_at < now).with_for_update(skip_locked=True)
        over = sa.select(families.c.id).where(families.c.expires_at < now).with_for_update(skip_locked=True)
        async with self._database.transaction() as connection:
            ids = (await connection.execute(over)).scalars().all()
            await connection.execute(tokens.delete().where(tokens.c.family_id.in_(ids)))
            await connection.execute(tokens.delete().where(tokens.c.hash.in_(spent)))
            await connection.execute(families.delete().where(families.c.id.in_(ids)))
        return len(ids)


def live(user_id: uuid.UUID, now: datetime) -> sa.ColumnElement[bool]:
    """Is it a session of the user that could still be refreshed?"""
    return (families.c.user_id == user_id) & families.c.revoked_at.is_(None) & (families.c.expires_at > now)


async def revoke(connection: AsyncConnection, chosen: sa.ColumnElement[bool], now: datetime) -> int:
    """End sessions; gives their number. Who locks their user does that first."""
    locked = sa.select(families.c.id).where(chosen).order_by(families.c.id).with_for_update()
    ids: Sequence[uuid.UUID] = (await connection.execute(locked)).scalars().all()
    await connection.execute(families.update().where(families.c.id.in_(ids)).values(revoked_at=now))
    return len(ids)


async def _lock_family(connection: AsyncConnection, token: bytes) -> sa.Row[*tuple[Any, ...]] | None:
    """The token's family with its user's name, locked against other refreshes and logouts."""
    of_token = sa.select(tokens.c.family_id).where(tokens.c.hash == token).scalar_subquery()
    query = (
        sa.select(families.c.id, families.c.user_id, families.c.revoked_at, users.c.name)
        .join(users, users.c.id == families.c.user_id)
        .where(families.c.id == of_token)
        .with_for_update(of=families)
    )
    return (await connection.execute(query)).one_or_none()


async def _stored(connection: AsyncConnection, token: bytes) -> StoredToken | None:
    query = sa.select(tokens.c.expires_at, tokens.c.used_at).where(tokens.c.hash == token)
    row = (await connection.execute(query)).one_or_none()
    return None if row is None else StoredToken(row.expires_at, row.used_at)


async def _use_up(
    connection: AsyncConnection,
    family_id: uuid.UUID,
    token: bytes,
    successor: bytes,
    now: datetime,
    expires_at: datetime,
) -> None:
    await connection.execute(tokens.update().where(tokens.c.hash == token).values(used_at=now))
    await connection.execute(tokens.insert().values(hash=successor, family_id=family_id, expires_at=expires_at))
    used = {"expires_at": expires_at, "last_used_at": now}
    await connection.execute(families.update().where(families.c.id == family_id).values(used))


async def _revoke(connection: AsyncConnection, family_id: uuid.UUID, now: datetime) -> None:
    revoked = sa.func.coalesce(families.c.revoked_at, now)
    await connection.execute(families.update().where(families.c.id == family_id).values(revoked_at=revoked))
