"""Profiles, coins and the outbox in PostgreSQL."""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from api.database import Database
from api.profile import decimals, deletion, idempotency
from api.profile.errors import Conflict, InvalidInput, NotAuthenticated, NotFound
from api.profile.idempotency import Once
from api.profile.tables import coins, outbox, profiles

CLAIM_S = 30.0

_live = coins.c.deleted_at.is_(None)


# The statements of the busiest call, built once.
_its_coin = (coins.c.user_id == sa.bindparam("owner")) & (coins.c.symbol == sa.bindparam("coin")) & _live
_changed = coins.c.quantity + sa.bindparam("change", type_=coins.c.quantity.type)
_ADD = (
    coins.update()
    .where(_its_coin, _changed >= 0, _changed < sa.literal(Decimal(10) ** decimals.INTEGER_DIGITS))
    .values(quantity=_changed, updated_at=sa.bindparam("now"))
    .returning(*coins.c)
)
_HELD = sa.select(coins.c.quantity).where(_its_coin)
_HOLD = (
    insert(coins)
    .on_conflict_do_nothing(index_elements=[coins.c.user_id, coins.c.symbol], index_where=_live)
    .values({name: sa.bindparam(name) for name in ("user_id", "symbol", "quantity", "created_at", "updated_at")})
    .returning(*coins.c)
)
_TELL = outbox.insert()


@dataclass(frozen=True)
class CoinRow:
    """A coin held; `symbol` is lowercase."""

    id: int
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    symbol: str
    quantity: Decimal
    user_id: uuid.UUID

    def as_json(self) -> dict[str, Any]:
        """Exactly, for `from_json`."""
        return {name: value if value is None else str(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "CoinRow":
        """The opposite of `as_json`."""
        times = (fields[name] for name in ("created_at", "updated_at", "deleted_at"))
        created, updated, deleted = (None if time is None else datetime.fromisoformat(time) for time in times)
        assert created is not None
        assert updated is not None
        symbol, quantity = str(fields["symbol"]), Decimal(fields["quantity"])
        return cls(int(fields["id"]), created, updated, deleted, symbol, quantity, uuid.UUID(fields["user_id"]))


@dataclass(frozen=True)
class ProfileRow:
    """A user and the coins held, by id."""

    id: uuid.UUID
    name: str
    coins: list[CoinRow]


@dataclass(frozen=True)
class SubscriptionChange:
    """What the aggregator is to be told: the user now holds the symbol, or does no more."""

    id: int
    user_id: uuid.UUID
    symbol: str
    held: bool


class ProfileRepository:
    """Every method is one transaction and raises DatabaseAway when PostgreSQL does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, user_id: uuid.UUID, name: str) -> None:
        """Raises Conflict when the user has a profile, NotAuthenticated when the account has been deleted."""
        try:
            async with self._database.transaction() as connection:
                if await deletion.is_gone(connection, user_id):
                    raise NotAuthenticated(deletion.GONE)
                row = profiles.insert().values(id=user_id, name=name, created_at=datetime.now(UTC))
                await connection.execute(row)
        except IntegrityError as error:
            raise Conflict("the profile exists already") from error

    async def find(self, user_id: uuid.UUID) -> ProfileRow | None:
        """The profile with its coins."""
        async with self._database.transaction() as connection:
            query = sa.select(profiles.c.name).where(profiles.c.id == user_id)
            name = (await connection.execute(query)).scalar_one_or_none()
            held = await _held(connection, user_id)
        return None if name is None else ProfileRow(user_id, name, held)

    async def held(self, user_id: uuid.UUID) -> list[CoinRow]:
        """The user's coins by id; none without a profile. Raises NotAuthenticated when the account has been deleted."""
        async with self._database.transaction() as connection:
            held = await _held(connection, user_id)
            if not held and await deletion.has_begun(connection, user_id):
                raise NotAuthenticated(deletion.GONE)
            return held

    async def answered(self, once: Once) -> CoinRow | None:
        """What `change` has given for this key. Raises InvalidInput when it named another request."""
        async with self._database.transaction() as connection:
            answer = await idempotency.find(connection, once)
        return None if answer is None else CoinRow.from_json(answer)

    async def change(self, user_id: uuid.UUID, symbol: str, change: Decimal, once: Once | None = None) -> CoinRow:
        """Add to, or take from, what is held; the aggregator is to be told when it is held anew.

        Raises InvalidInput when the result is below zero or too large, NotFound without a profile.
        """
        try:
            async with self._database.transaction() as connection:
                if once and (answer := await idempotency.claim(connection, once)):
                    return CoinRow.from_json(answer)
                coin = await _change(connection, user_id, symbol, change)
                if once:
                    await idempotency.keep(connection, once, coin.as_json())
                return coin
        except IntegrityError as error:
            raise NotFound("there is no profile yet") from error

    async def delete(self, user_id: uuid.UUID, symbol: str) -> None:
        """Raises NotFound when it is not held."""
        gone = coins.update().where(_coin_of(user_id, symbol)).values(deleted_at=datetime.now(UTC))
        async with self._database.transaction() as connection:
            if (await connection.execute(gone)).rowcount == 0:
                raise NotFound("this coin is not held")
            await _tell_aggregator(connection, user_id, symbol, held=False)

    async def tell_all_again(self) -> int:
        """Put every holding into the outbox that has nothing there; gives their number.

        The rows are locked, so that a deletion at the same time comes either before (and is not told of here) or after.
        """
        there = sa.exists().where((outbox.c.user_id == coins.c.user_id) & (outbox.c.symbol == coins.c.symbol))
        holdings = (
            sa.select(coins.c.user_id, coins.c.symbol, sa.true())
            .where(_live, ~there)
            .with_for_update(read=True, of=coins)
        )
        async with self._database.transaction() as connection:
            fill = outbox.insert().from_select(["user_id", "symbol", "held"], holdings)
            return (await connection.execute(fill)).rowcount

    async def claim_changes(self, limit: int) -> list[SubscriptionChange]:
        """The oldest changes, at most one for each user and symbol; nobody else gets them for 30 s."""
        earlier = outbox.alias("earlier")
        same = (earlier.c.user_id == outbox.c.user_id) & (earlier.c.symbol == outbox.c.symbol)
        first = ~sa.exists().where(same & (earlier.c.id < outbox.c.id))
        free = sa.select(outbox.c.id).where(outbox.c.claimed_until <= sa.func.clock_timestamp(), first)
        chosen = free.order_by(outbox.c.id).limit(limit).with_for_update(skip_locked=True, of=outbox)
        until = sa.func.clock_timestamp() + timedelta(seconds=CLAIM_S)
        columns = (outbox.c.id, outbox.c.user_id, outbox.c.symbol, outbox.c.held)
        claim = outbox.update().where(outbox.c.id.in_(chosen)).values(claimed_until=until).returning(*columns)
        async with self._database.transaction() as connection:
            rows = await connection.execute(claim)
            return sorted((SubscriptionChange(*row) for row in rows), key=lambda change: change.id)

    async def forget_changes(self, told: list[int], untold: list[int]) -> None:
        """Take from the outbox what the aggregator has been told, and free the rest of what was claimed."""
        async with self._database.transaction() as connection:
            await connection.execute(outbox.delete().where(outbox.c.id.in_(told)))
            free = outbox.update().where(outbox.c.id.in_(untold)).values(claimed_until=sa.func.clock_timestamp())
            await connection.execute(free)


def _coin_of(user_id: uuid.UUID, symbol: str) -> sa.ColumnElement[bool]:
    return (coins.c.user_id == user_id) & (coins.c.symbol == symbol) & _live


def _coin(row: Sequence[Any] | None) -> CoinRow | None:
    return None if row is None else CoinRow(*row)


async def _held(connection: AsyncConnection, user_id: uuid.UUID) -> list[CoinRow]:
    query = sa.select(coins).where((coins.c.user_id == user_id) & _live).order_by(coins.c.id)
    return [CoinRow(*row) for row in await connection.execute(query)]


async def _change(connection: AsyncConnection, user_id: uuid.UUID, symbol: str, change: Decimal) -> CoinRow:
    # Another change may add or delete the coin between the steps; then they begin again.
    while True:
        if coin := await _change_held(connection, user_id, symbol, change):
            return coin
        await _refuse_impossible(connection, user_id, symbol, change)
        if coin := await _hold_anew(connection, user_id, symbol, change):
            await _tell_aggregator(connection, user_id, symbol, held=True)
            return coin


async def _change_held(connection: AsyncConnection, user_id: uuid.UUID, symbol: str, change: Decimal) -> CoinRow | None:
    """The changed coin, or None when it is not held or the change is not possible."""
    values = {"owner": user_id, "coin": symbol, "change": change, "now": datetime.now(UTC)}
    return _coin((await connection.execute(_ADD, values)).one_or_none())


async def _refuse_impossible(connection: AsyncConnection, user_id: uuid.UUID, symbol: str, change: Decimal) -> None:
    """Raises InvalidInput when the coin is held, but can't change by this."""
    held = (await connection.execute(_HELD, {"owner": user_id, "coin": symbol})).scalar_one_or_none()
    if held is not None:
        _sum(held, change)


async def _hold_anew(connection: AsyncConnection, user_id: uuid.UUID, symbol: str, quantity: Decimal) -> CoinRow | None:
    """The new coin, or None when it is held after all."""
    now = datetime.now(UTC)
    values = {"user_id": user_id, "symbol": symbol, "quantity": _sum(Decimal(0), quantity)}
    row = {**values, "created_at": now, "updated_at": now}
    return _coin((await connection.execute(_HOLD, row)).one_or_none())


def _sum(quantity: Decimal, change: Decimal) -> Decimal:
    try:
        return decimals.add(quantity, change)
    except ValueError as error:
        raise InvalidInput(f"quantity: {error}") from error


async def _tell_aggregator(connection: AsyncConnection, user_id: uuid.UUID, symbol: str, *, held: bool) -> None:
    await connection.execute(_TELL, {"user_id": user_id, "symbol": symbol, "held": held})
