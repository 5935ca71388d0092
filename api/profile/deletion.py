"""Accounts that are deleted, in both databases: first what we hold, then the account, whoever is down in between.

The authorization service gives a ticket to the account's owner. The transaction that deletes the profile stores it;
it is brought to the authorization service from there, again after a restart, until it has deleted the account.
What stays is the user's id, without a name, so that an access token that still runs can't begin a profile anew.
"""

import asyncio
import logging
import uuid
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from api.database import Database, DatabaseAway
from api.profile import idempotency
from api.profile.account_client import AccountClient
from api.profile.errors import NotAuthenticated, ProfileError
from api.profile.tables import coins, metadata, outbox, profiles

GONE = "the account has been deleted"
LOOK_EVERY_S = 5.0
TRIED_AT_ONCE = 100
# Longer than an access token lives.
REMEMBERED_FOR = timedelta(days=30)

deletions = sa.Table(
    "account_deletions",
    metadata,
    sa.Column("user_id", sa.Uuid, primary_key=True),
    sa.Column("ticket", sa.Text),  # until the account is deleted
    sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
)
_now = sa.func.clock_timestamp()
_FIRST = uuid.UUID(int=0)

log = logging.getLogger(__name__)


async def is_gone(connection: AsyncConnection, user_id: uuid.UUID) -> bool:
    """Has the account been deleted? No deletion begins before this transaction ends."""
    await _lock(connection, user_id)
    return await has_begun(connection, user_id)


async def has_begun(connection: AsyncConnection, user_id: uuid.UUID) -> bool:
    """Has the account been deleted, as far as is known now?"""
    query = sa.select(sa.exists().where(deletions.c.user_id == user_id))
    return bool((await connection.execute(query)).scalar_one())


class Deletions:
    """Deletes profiles, and brings the tickets of their accounts to the authorization service."""

    def __init__(self, database: Database, accounts: AccountClient) -> None:
        self._database = database
        self._accounts = accounts
        self._refused: set[uuid.UUID] = set()
        self._tried = _FIRST  # up to this id, in this round

    async def begin(self, user_id: uuid.UUID, ticket: str) -> None:
        """Delete what we hold of the user, and keep the ticket. Raises DatabaseAway, and then nothing has changed."""
        held = sa.select(coins.c.user_id, coins.c.symbol, sa.false()).where(
            coins.c.user_id == user_id, coins.c.deleted_at.is_(None)
        )
        row = insert(deletions).values(user_id=user_id, ticket=ticket, created_at=_now)
        async with self._database.transaction() as connection:
            await _lock(connection, user_id)
            await connection.execute(sa.select(profiles.c.id).where(profiles.c.id == user_id).with_for_update())
            await connection.execute(outbox.insert().from_select(["user_id", "symbol", "held"], held))
            await connection.execute(profiles.delete().where(profiles.c.id == user_id))  # and its coins
            await connection.execute(idempotency.keys.delete().where(idempotency.keys.c.user_id == user_id))
            await connection.execute(row.on_conflict_do_update(index_elements=["user_id"], set_={"ticket": ticket}))

    async def finish(self, user_id: uuid.UUID, ticket: str) -> bool:
        """Have the account deleted; False when that will be tried again."""
        try:
            await self._accounts.delete(ticket)
        except NotAuthenticated as error:
            # Too old, or its key is gone: somebody has to delete the account by hand, and is told so once.
            if user_id not in self._refused:
                self._refused.add(user_id)
                log.error("the account of %s can't be deleted: %s", user_id, error)
            return False
        except ProfileError as error:
            log.warning("the account %s will be deleted later: %s", user_id, error)
            return False
        done = deletions.update().where(deletions.c.user_id == user_id, deletions.c.ticket == ticket)
        async with self._database.transaction() as connection:
            await connection.execute(done.values(ticket=None))
        return True

    async def run(self) -> None:
        """Until cancelled: finish what was begun, also by another process, and forget what is long over."""
        while True:
            try:
                for user_id, ticket in await self._begun():
                    await self.finish(user_id, ticket)
                await self._forget_old()
            except DatabaseAway:
                log.debug("deletions wait for the database")
            await asyncio.sleep(LOOK_EVERY_S)

    async def _begun(self) -> list[tuple[uuid.UUID, str]]:
        """Some that wait, and the next ones next time, so that those which stay refused are in nobody's way."""
        waiting = deletions.c.ticket.is_not(None) & (deletions.c.user_id > self._tried)
        query = sa.select(deletions.c.user_id, deletions.c.ticket).where(waiting).order_by(deletions.c.user_id)
        async with self._database.transaction() as connection:
            found = [(row.user_id, row.ticket) for row in await connection.execute(query.limit(TRIED_AT_ONCE))]
        self._tried = found[-1][0] if len(found) == TRIED_AT_ONCE else _FIRST
        return found

    async def _forget_old(self) -> None:
        over = deletions.c.ticket.is_(None) & (deletions.c.created_at < _now - REMEMBERED_FOR)
        async with self._database.transaction() as connection:
            await connection.execute(deletions.delete().where(over))
            await idempotency.forget_old(connection)


async def _lock(connection: AsyncConnection, user_id: uuid.UUID) -> None:
    """One transaction of a user at a time begins or ends a profile; there may be no row to lock."""
    key = sa.func.hashtextextended(str(user_id), 0)
    await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
