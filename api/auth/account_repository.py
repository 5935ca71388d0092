"""What a user can see and end: sessions, the password, the account itself."""

import uuid
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from api.auth.database import Database
from api.auth.repository import User, families, live, revoke, tokens, users


@dataclass(frozen=True)
class SessionRow:
    """A session that could still be refreshed."""

    id: uuid.UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    address: str
    user_agent: str


class AccountRepository:
    """Every method is one transaction and raises DatabaseAway when PostgreSQL does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def user(self, user_id: uuid.UUID) -> User | None:
        """The account."""
        async with self._database.transaction() as connection:
            query = sa.select(users.c.id, users.c.name, users.c.password_hash).where(users.c.id == user_id)
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else User(*row)

    async def sessions(self, user_id: uuid.UUID, now: datetime) -> list[SessionRow]:
        """The user's live sessions, the newest first."""
        columns = (families.c.id, families.c.created_at, families.c.last_used_at, families.c.expires_at)
        query = sa.select(*columns, families.c.address, families.c.user_agent).where(live(user_id, now))
        async with self._database.transaction() as connection:
            rows = await connection.execute(query.order_by(families.c.created_at.desc(), families.c.id))
            return [SessionRow(*row) for row in rows]

    async def revoke(self, user_id: uuid.UUID, session_id: uuid.UUID | None, now: datetime) -> int:
        """End one live session of the user, or all of them; gives their number."""
        chosen = live(user_id, now)
        if session_id is not None:
            chosen &= families.c.id == session_id
        async with self._database.transaction() as connection:
            return await revoke(connection, chosen, now)

    async def change_password(self, user: User, new_hash: str, kept: uuid.UUID | None, now: datetime) -> bool:
        """Set the hash and end all sessions but `kept`; False when it is not `user`'s password any more."""
        same = (users.c.id == user.id) & (users.c.password_hash == user.password_hash)
        async with self._database.transaction() as connection:
            if (await connection.execute(users.update().where(same).values(password_hash=new_hash))).rowcount == 0:
                return False
            others = live(user.id, now)
            await revoke(connection, others if kept is None else others & (families.c.id != kept), now)
        return True

    async def delete(self, user_id: uuid.UUID) -> bool:
        """Forget the user: name, password, sessions and places. False when there is none."""
        sessions = sa.select(families.c.id).where(families.c.user_id == user_id)
        async with self._database.transaction() as connection:
            await connection.execute(sa.select(users.c.id).where(users.c.id == user_id).with_for_update())
            await connection.execute(sessions.order_by(families.c.id).with_for_update())
            await connection.execute(tokens.delete().where(tokens.c.family_id.in_(sessions)))
            await connection.execute(families.delete().where(families.c.user_id == user_id))
            return (await connection.execute(users.delete().where(users.c.id == user_id))).rowcount > 0
