"""Accounts and sessions: what the authorization service does, whatever carries the calls."""

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from weakref import WeakValueDictionary

from api.auth.attempts import Throttle
from api.auth.credentials import MAX_NAME, PasswordHasher, checked_name, checked_password, composed
from api.auth.errors import InvalidInput, NameTaken, NotAuthenticated, Overloaded
from api.auth.repository import AuthRepository, User
from api.auth.rotation import RefreshTokens
from api.auth.throttle import keys_of, place_of
from api.tokens import AccessTokens

log = logging.getLogger(__name__)

WRONG_CREDENTIALS = "wrong name or password"
MAX_ADDRESS, MAX_USER_AGENT = 64, 200
WRONG_TOKEN = "the refresh token is not valid"  # noqa: S105 - a message


@dataclass(frozen=True)
class Caller:
    """Whom a call is made for: IP address, program, and a refresh token of an earlier session, each where known."""

    address: str = ""
    user_agent: str = ""
    refresh_token: str = ""


@dataclass(frozen=True)
class Session:
    """A pair of tokens, with when they expire in ms since the epoch."""

    access_token: str
    refresh_token: str
    access_expires_at_ms: int
    refresh_expires_at_ms: int


NOBODY = Caller()


def utc_now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


class AuthService:
    """Every method can raise DatabaseAway; those that hash passwords Overloaded."""

    def __init__(
        self,
        repository: AuthRepository,
        throttle: Throttle,
        hasher: PasswordHasher,
        access: AccessTokens,
        refresh: RefreshTokens,
        refresh_ttl_s: float,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._repository = repository
        self._throttle = throttle
        self._hasher = hasher
        self._access = access
        self._refresh = refresh
        self._refresh_ttl = timedelta(seconds=refresh_ttl_s)
        self._clock = clock
        self._registering: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def register(self, name: str, password: str, caller: Caller = NOBODY) -> uuid.UUID:
        """The new user's id. Raises InvalidInput, NameTaken."""
        self._ensure_room()
        name = checked_name(name)
        password = checked_password(password, name)
        # One password is hashed for a name that many want at once; the others then find it taken.
        one_at_a_time = self._registering.setdefault(name, asyncio.Lock())
        async with one_at_a_time:
            if await self._repository.find_user(name):
                raise NameTaken("this name is taken")
            user = User(uuid.uuid4(), name, await self._hasher.hash(password))
            await self._repository.add_user(user, self._clock())
        await self._throttle.know(user.id, place_of(caller.address))
        return user.id

    async def login(self, name: str, password: str, caller: Caller = NOBODY) -> Session:
        """A new session. Raises NotAuthenticated, with the same text after the same work whatever was wrong.

        Raises TooManyTries, see `throttle`; Overloaded.
        """
        self._ensure_room()
        user = await self._find(name)
        device = self._refresh.hash(caller.refresh_token) if caller.refresh_token else None
        keys = keys_of(user.name if user else composed(name, MAX_NAME), caller.address)
        attempt = await self._throttle.enter(keys, user.id if user else None, device)
        try:
            right = await self._hasher.matches(password, user.password_hash if user else None, attempt.waited_s)
        except Overloaded:
            await self._throttle.forgive(attempt)
            raise
        attempt.ensure_due(right)
        if user is None or not right:
            raise NotAuthenticated(WRONG_CREDENTIALS)
        await self._throttle.succeeded(attempt, user.id)
        return await self._open(user, caller)

    async def refresh(self, token: str) -> Session:
        """The session's next pair of tokens; uses `token` up. Raises NotAuthenticated.

        The successor is given again within 10 s while it is unused; any other use of a used token
        revokes the whole family.
        """
        successor, now = self._refresh.successor(token), self._clock()
        hashes = self._refresh.hash(token), self._refresh.hash(successor)
        rotated = await self._repository.rotate(*hashes, now, now + self._refresh_ttl)
        if rotated is None:
            raise NotAuthenticated(WRONG_TOKEN)
        return self._session(rotated.user_id, rotated.name, rotated.session_id, successor, rotated.expires_at)

    async def logout(self, token: str) -> None:
        """End the token's session; an unknown token is no error."""
        await self._repository.revoke_family(self._refresh.hash(token), self._clock())

    async def forget_expired(self) -> None:
        """Delete sessions that have run out, and failed logins that count no more."""
        await self._throttle.forget_old()
        if count := await self._repository.delete_expired(self._clock()):
            log.info("forgot %d expired sessions", count)

    def _ensure_room(self) -> None:
        self._hasher.ensure_room()
        self._repository.ensure_room()

    async def _find(self, name: str) -> User | None:
        try:
            name = checked_name(name)
        except InvalidInput:
            return None  # nobody can have such a name, which is not the caller's to know
        return await self._repository.find_user(name)

    async def _open(self, user: User, caller: Caller) -> Session:
        token, now = self._refresh.new(), self._clock()
        expires_at = now + self._refresh_ttl
        where = _kept(caller.address, MAX_ADDRESS), _kept(caller.user_agent, MAX_USER_AGENT)
        session_id = await self._repository.open_family(user, self._refresh.hash(token), now, expires_at, *where)
        if session_id is None:
            raise NotAuthenticated(WRONG_CREDENTIALS)
        return self._session(user.id, user.name, session_id, token, expires_at)

    def _session(
        self, user_id: uuid.UUID, name: str, session_id: uuid.UUID, refresh_token: str, expires_at: datetime
    ) -> Session:
        access_token, access_expires_at_ms = self._access.issue(str(user_id), name, str(session_id))
        return Session(access_token, refresh_token, access_expires_at_ms, int(expires_at.timestamp() * 1000))


def _kept(text: str, most: int) -> str:
    """What is kept of a caller's word; PostgreSQL takes no NUL, and nobody needs the other control characters."""
    return "".join(character for character in text[:most] if character.isprintable())
