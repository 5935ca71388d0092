"""PostgreSQL behind a service: bounded waits, and one error for all the ways it can be away."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from alembic.util.exc import CommandError
from sqlalchemy import URL, event, text
from sqlalchemy.exc import DBAPIError, DisconnectionError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from infra.migrations import migrate

DEADLINE_S = 4.0
TRUSTED_S = 1.0  # a connection used within this is taken for alive
_SERVER_TIMEOUTS = "-c statement_timeout=3000 -c lock_timeout=3000 -c idle_in_transaction_session_timeout=10000"

log = logging.getLogger(__name__)


class DatabaseAway(Exception):
    """PostgreSQL did not answer in time; worth another try."""

    retry_after_s = 2


class Database:
    """A pool of connections; unusable until the first `check()` has brought the schema up to date.

    `service` names the folder of its migrations.
    """

    def __init__(self, url: URL, service: str) -> None:
        self._url = url
        self._service = service
        self._prepared = False
        self._preparing = asyncio.Lock()
        self._engine = create_async_engine(
            url,
            pool_size=10,
            max_overflow=0,
            hide_parameters=True,  # an error's text ends in the log, and they may be secrets
            pool_timeout=3,
            connect_args={"connect_timeout": 3, "options": _SERVER_TIMEOUTS},
        )
        event.listen(self._engine.sync_engine, "checkin", _note_use)
        event.listen(self._engine.sync_engine, "checkout", _ping_when_idle)

    @property
    def address(self) -> str:
        """host:port/database, for messages."""
        return f"{self._url.host}:{self._url.port}/{self._url.database}"

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction that is committed at the end. Raises DatabaseAway, after 4 s at the latest."""
        if not self._prepared:
            raise DatabaseAway("the database is not ready yet")
        try:
            async with asyncio.timeout(DEADLINE_S), self._engine.begin() as connection:
                yield connection
        except (OperationalError, PoolTimeout, TimeoutError, OSError) as error:
            log.warning("PostgreSQL at %s: %s", self.address, _reason(error))
            raise DatabaseAway("the database does not answer") from error
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            raise DatabaseAway("the connection to the database broke") from error

    async def check(self) -> None:
        """Does it answer? The first time, bring its schema up to date. Raises DatabaseAway."""
        async with self._preparing:
            if not self._prepared:
                await self._prepare()
        async with self.transaction() as connection:
            await connection.execute(text("SELECT 1"))

    async def _prepare(self) -> None:
        try:
            await asyncio.to_thread(migrate, self._url, self._service)
        except OperationalError as error:
            raise DatabaseAway(_reason(error)) from error
        except (SQLAlchemyError, CommandError) as error:
            raise DatabaseAway(f"its schema can't be brought up to date: {_reason(error)}") from error
        self._prepared = True

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


def _note_use(_connection: object, record: ConnectionPoolEntry) -> None:
    record.info["used"] = time.monotonic()


def _ping_when_idle(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
    """A connection that has rested may be dead; `pool_pre_ping` would ask before each transaction of a busy one too."""
    if time.monotonic() - record.info.get("used", -math.inf) < TRUSTED_S:
        return
    try:
        cursor = connection.cursor()
        cursor.execute("SELECT 1")
        cursor.close()
        connection.rollback()
    except Exception as error:
        raise DisconnectionError from error


def _reason(error: Exception) -> str:
    """The first line of what the driver says; SQLAlchemy's own message would add the statement and its values."""
    said = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    return said.strip().splitlines()[0] if said.strip() else type(error).__name__
