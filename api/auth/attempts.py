"""Failed logins and known places in PostgreSQL, so that all processes count together; the rules: `throttle`."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from api.auth import throttle
from api.auth.database import Database
from api.auth.errors import TooManyTries
from api.auth.repository import families, metadata, tokens
from api.auth.throttle import Failures, Keys

_time = sa.DateTime(timezone=True)
login_failures = sa.Table(
    "login_failures",
    metadata,
    sa.Column("key", sa.LargeBinary, primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("last_at", _time, nullable=False, index=True),
)
known_places = sa.Table(
    "known_places",
    metadata,
    sa.Column("user_id", sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("place", sa.LargeBinary, primary_key=True),
    sa.Column("last_at", _time, nullable=False, index=True),
)


@dataclass(frozen=True)
class Try:
    """A try that has been counted as a failure, until `Throttle.succeeded` or `Throttle.forgive` takes it back."""

    keys: Keys
    known: bool
    waited_s: float


class Throttle:
    """Raises DatabaseAway when PostgreSQL does not answer."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._database = database
        self._clock = clock
        self._sleep = sleep

    async def enter(self, keys: Keys, user_id: uuid.UUID | None, device: bytes | None = None) -> Try:
        """Count a try before its password is checked, and wait if it has to. Raises TooManyTries.

        `device` is the hash of a refresh token that the caller has. Unknown users (None) cost the same queries.
        """
        async with self._database.transaction() as connection:
            place, family = await _known(connection, user_id or uuid.uuid4(), keys, device, self._clock())
            known = place or family is not None
            if family is not None:
                keys = keys.of_device(family.bytes)
            wait_s = await self._count(connection, keys, known)
        await self._sleep(wait_s)
        return Try(keys, known, wait_s)

    async def enter_known(self, keys: Keys) -> Try:
        """The same for a caller who is known anyway. Raises TooManyTries."""
        async with self._database.transaction() as connection:
            wait_s = await self._count(connection, keys, known=True)
        await self._sleep(wait_s)
        return Try(keys, True, wait_s)

    async def succeeded(self, attempt: Try, user_id: uuid.UUID) -> None:
        """The password was right: begin anew here, and know the place."""
        await self.forgive(attempt)
        await self.reset(attempt)
        await self.know(user_id, attempt.keys.address)

    async def know(self, user_id: uuid.UUID, place: bytes) -> None:
        """Remember that the user was there."""
        now = self._clock()
        row = insert(known_places).values(user_id=user_id, place=place, last_at=now)
        here = row.on_conflict_do_update(index_elements=["user_id", "place"], set_={"last_at": now})
        try:
            async with self._database.transaction() as connection:
                await connection.execute(here)
        except IntegrityError:
            return  # the account has been deleted meanwhile, and nothing is to be remembered of it

    async def reset(self, attempt: Try) -> None:
        """Forget the failures of this account at this place."""
        own = attempt.keys.both if attempt.known else attempt.keys.strangers
        async with self._database.transaction() as connection:
            await connection.execute(login_failures.delete().where(login_failures.c.key == own))

    async def forgive(self, attempt: Try) -> None:
        """It was no failure."""
        keys = sorted(throttle.counted_under(attempt.keys, attempt.known))
        async with self._database.transaction() as connection:
            chosen = sa.select(login_failures.c.key).where(login_failures.c.key.in_(keys))
            await connection.execute(chosen.order_by(login_failures.c.key).with_for_update())
            less = {"failures": sa.func.greatest(login_failures.c.failures - 1, 0)}
            await connection.execute(login_failures.update().where(login_failures.c.key.in_(keys)).values(less))

    async def forget_old(self) -> None:
        """Delete what counts no more."""
        now = self._clock()
        async with self._database.transaction() as connection:
            old = login_failures.c.last_at < now - throttle.ACCOUNT.forgotten_after
            await connection.execute(login_failures.delete().where(old))
            await connection.execute(known_places.delete().where(known_places.c.last_at < now - throttle.KNOWN_FOR))

    async def _count(self, connection: AsyncConnection, keys: Keys, known: bool) -> float:
        """Count a failure; gives how long the try has to wait. Raises TooManyTries, and counts nothing, if too long."""
        now, limits = self._clock(), throttle.counted_under(keys, known)
        counted = await _locked(connection, sorted(limits), now)
        wait_s = throttle.wait_s(keys, counted, known, now)
        if wait_s > throttle.PATIENCE_S:
            raise TooManyTries("too many failed logins; try again later", wait_s)
        for key in sorted(limits):
            failures = throttle.current(counted.get(key), limits[key], now) + 1
            new = {"failures": failures, "last_at": now + timedelta(seconds=wait_s)}
            await connection.execute(login_failures.update().where(login_failures.c.key == key).values(new))
        return wait_s


async def _known(
    connection: AsyncConnection, user_id: uuid.UUID, keys: Keys, device: bytes | None, now: datetime
) -> tuple[bool, uuid.UUID | None]:
    """Has the user been at this address, and which session of theirs did the device have?"""
    place = sa.exists().where(
        known_places.c.user_id == user_id,
        known_places.c.place == keys.address,
        known_places.c.last_at >= now - throttle.KNOWN_FOR,
    )
    family = sa.select(families.c.id).join(tokens, tokens.c.family_id == families.c.id)
    own = family.where(tokens.c.hash == (device or b""), families.c.user_id == user_id).scalar_subquery()
    row = (await connection.execute(sa.select(place, own))).one()
    return bool(row[0]), row[1]


async def _locked(connection: AsyncConnection, keys: list[bytes], now: datetime) -> dict[bytes, Failures]:
    """What is counted under the keys, locked in their order against other tries."""
    missing = insert(login_failures).values([{"key": key, "failures": 0, "last_at": now} for key in keys])
    await connection.execute(missing.on_conflict_do_nothing())
    query = sa.select(login_failures).where(login_failures.c.key.in_(keys)).order_by(login_failures.c.key)
    rows = await connection.execute(query.with_for_update())
    return {row.key: Failures(row.failures, row.last_at) for row in rows}
