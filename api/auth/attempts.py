"""Failed logins and known places in PostgreSQL, so that all processes count together; the rules: `throttle`."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection, Mapping
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
from api.auth.throttle import Failures, Keys, Limit

_TOO_MANY = "too many failed logins; try again later"
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
    counted: frozenset[bytes]  # of the keys
    known: bool
    waited_s: float
    early_s: float = 0.0  # it came so much too early for any but those who are known

    def ensure_due(self, right: bool) -> None:
        """Raises TooManyTries if it came too early, but for the right password from who is known."""
        if self.early_s and not (right and self.known):
            raise TooManyTries(_TOO_MANY, self.early_s)


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
        """Count a try before its password is checked, and wait if it has to. Raises TooManyTries, here or later.

        `device` is the hash of a refresh token that the caller has. Unknown users (None) cost the same queries.
        """
        async with self._database.transaction() as connection:
            place, family = await _known(connection, user_id or uuid.uuid4(), keys, device, self._clock())
            if family is not None:
                attempt = await self._count_own(connection, keys.of_device(family.bytes))
            else:
                attempt = await self._count(connection, keys, place)
        await self._sleep(attempt.waited_s)
        return attempt

    async def enter_known(self, keys: Keys) -> Try:
        """The same for a caller who is known anyway. Raises TooManyTries."""
        async with self._database.transaction() as connection:
            attempt = await self._count_own(connection, keys)
        await self._sleep(attempt.waited_s)
        return attempt

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
        own = attempt.counted & {attempt.keys.both, attempt.keys.strangers}
        async with self._database.transaction() as connection:
            await connection.execute(login_failures.delete().where(await _lock(connection, own)))

    async def forgive(self, attempt: Try) -> None:
        """It was no failure."""
        less = {"failures": sa.func.greatest(login_failures.c.failures - 1, 0)}
        async with self._database.transaction() as connection:
            counted = await _lock(connection, attempt.counted)
            await connection.execute(login_failures.update().where(counted).values(less))

    async def forget_old(self) -> None:
        """Delete what counts no more."""
        now = self._clock()
        async with self._database.transaction() as connection:
            old = login_failures.c.last_at < now - throttle.ACCOUNT.forgotten_after
            await connection.execute(login_failures.delete().where(old))
            await connection.execute(known_places.delete().where(known_places.c.last_at < now - throttle.KNOWN_FOR))

    async def _count(self, connection: AsyncConnection, keys: Keys, known: bool) -> Try:
        """Count a failure. Raises TooManyTries, and counts nothing, if this account failed too often here.

        What came too early for what others did is counted here only, and checked as anything else: it costs the same.
        """
        now, limits = self._clock(), throttle.limits_of(keys)
        counted = await _locked(connection, limits, now)
        own_s, wait_s = throttle.own_wait_s(keys, counted, now), throttle.wait_s(keys, counted, now)
        if own_s > throttle.PATIENCE_S:
            raise TooManyTries(_TOO_MANY, wait_s)
        if wait_s > throttle.PATIENCE_S:
            await _add(connection, {keys.both: throttle.ACCOUNT}, counted, now, own_s)
            return Try(keys, frozenset([keys.both]), known, own_s, early_s=wait_s)
        await _add(connection, limits, counted, now, wait_s)
        return Try(keys, frozenset(limits), known, wait_s)

    async def _count_own(self, connection: AsyncConnection, keys: Keys) -> Try:
        """Count a failure of this device alone. Raises TooManyTries, and counts nothing."""
        now, limits = self._clock(), {keys.both: throttle.ACCOUNT}
        counted = await _locked(connection, limits, now)
        wait_s = throttle.own_wait_s(keys, counted, now)
        if wait_s > throttle.PATIENCE_S:
            raise TooManyTries(_TOO_MANY, wait_s)
        await _add(connection, limits, counted, now, wait_s)
        return Try(keys, frozenset(limits), True, wait_s)


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


async def _lock(connection: AsyncConnection, keys: Collection[bytes]) -> sa.ColumnElement[bool]:
    """The rows of the keys, locked in their order as `_locked` does."""
    chosen = login_failures.c.key.in_(keys)
    locked = sa.select(login_failures.c.key).where(chosen).order_by(login_failures.c.key)
    await connection.execute(locked.with_for_update())
    return chosen


async def _locked(connection: AsyncConnection, keys: Collection[bytes], now: datetime) -> dict[bytes, Failures]:
    """What is counted under the keys, locked in their order against other tries."""
    missing = insert(login_failures).values([{"key": key, "failures": 0, "last_at": now} for key in sorted(keys)])
    await connection.execute(missing.on_conflict_do_nothing())
    query = sa.select(login_failures).where(login_failures.c.key.in_(keys)).order_by(login_failures.c.key)
    rows = await connection.execute(query.with_for_update())
    return {row.key: Failures(row.failures, row.last_at) for row in rows}


async def _add(
    connection: AsyncConnection,
    limits: Mapping[bytes, Limit],
    counted: Mapping[bytes, Failures],
    now: datetime,
    wait_s: float,
) -> None:
    """One failure more under each key, when the try has waited."""
    for key in sorted(limits):
        failures = throttle.current(counted.get(key), limits[key], now) + 1
        new = {"failures": failures, "last_at": now + timedelta(seconds=wait_s)}
        await connection.execute(login_failures.update().where(login_failures.c.key == key).values(new))
