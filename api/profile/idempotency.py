"""`Idempotency-Key`: a request that is sent again is answered as before, and done once.

The key is stored in the transaction of the change itself, so either both are there or neither. A request that was
refused changed nothing and leaves no key behind.
"""

import hashlib
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.ext.asyncio import AsyncConnection

from api.profile.errors import InvalidInput
from api.profile.tables import metadata

KEPT_FOR = timedelta(hours=24)
MAX_KEY = 255

keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("user_id", sa.Uuid, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("fingerprint", sa.LargeBinary, nullable=False),
    sa.Column("answer", JSONB),
    sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False, index=True),
)
_now = sa.func.clock_timestamp()


@dataclass(frozen=True)
class Once:
    """A user's key, and the fingerprint of the request that it names."""

    user_id: uuid.UUID
    key: str
    fingerprint: bytes


def once(user_id: uuid.UUID, key: str, *request: str) -> Once:
    """The key (with or without the quotes of a structured field) for a request, by the parts that make it up."""
    return Once(user_id, key.strip('"'), hashlib.sha256("\0".join(request).encode()).digest())


async def find(connection: AsyncConnection, wanted: Once) -> dict[str, Any] | None:
    """What the request was answered before. Raises InvalidInput when the key has named another request."""
    query = sa.select(keys.c.fingerprint, keys.c.answer).where(_is(wanted), keys.c.expires_at > _now)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        return None
    if row.fingerprint != wanted.fingerprint:
        raise InvalidInput("Idempotency-Key: was used for another request")
    answer: dict[str, Any] = row.answer
    return answer


async def claim(connection: AsyncConnection, wanted: Once) -> dict[str, Any] | None:
    """None when this transaction may answer; else what another one answered, which is waited for.

    Raises InvalidInput when the key has named another request.
    """
    new = {"fingerprint": wanted.fingerprint, "answer": None, "expires_at": _now + KEPT_FOR}
    row = insert(keys).values(user_id=wanted.user_id, key=wanted.key, **new)
    free = row.on_conflict_do_update(index_elements=["user_id", "key"], set_=new, where=keys.c.expires_at <= _now)
    while (await connection.execute(free.returning(keys.c.key))).one_or_none() is None:
        if answer := await find(connection, wanted):
            return answer
    return None


async def keep(connection: AsyncConnection, wanted: Once, answer: Mapping[str, Any]) -> None:
    """Store the answer of what was claimed."""
    await connection.execute(keys.update().where(_is(wanted)).values(answer=dict(answer)))


async def forget_old(connection: AsyncConnection) -> None:
    """Delete keys whose time is over."""
    await connection.execute(keys.delete().where(keys.c.expires_at <= _now))


def _is(wanted: Once) -> sa.ColumnElement[bool]:
    return (keys.c.user_id == wanted.user_id) & (keys.c.key == wanted.key)
