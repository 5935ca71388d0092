"""What the owner of an access token can do with the account: sessions, password, deletion."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from api.auth.account_repository import AccountRepository, SessionRow
from api.auth.attempts import Throttle
from api.auth.credentials import PasswordHasher, checked_password
from api.auth.errors import NoSuchSession, NotAllowed, NotAuthenticated, Overloaded
from api.auth.repository import User
from api.auth.service import utc_now
from api.auth.throttle import keys_of
from api.tokens import AccessTokens, InvalidToken

# So long after the login its session may delete the account without the password.
RECENT = timedelta(minutes=15)
_TICKET = "deletion"
_TICKET_TTL_S = 30 * 86400.0

WRONG_PASSWORD = "the password is wrong"  # noqa: S105 - a message


@dataclass(frozen=True)
class Owner:
    """Who calls: the account, and the session of the token, where it has one."""

    user: User
    session: SessionRow | None
    sessions: list[SessionRow]


class AccountService:
    """Every method takes an access token and raises NotAuthenticated unless it is valid and its session alive.

    Services accept an access token until it runs out; here a logout or a revocation counts at once.
    """

    def __init__(
        self,
        repository: AccountRepository,
        throttle: Throttle,
        hasher: PasswordHasher,
        access: AccessTokens,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._repository = repository
        self._throttle = throttle
        self._hasher = hasher
        self._access = access
        self._clock = clock

    async def sessions(self, access_token: str) -> Owner:
        """The caller with all live sessions, the newest first."""
        return await self._owner(access_token)

    async def revoke(self, access_token: str, session_id: str | None) -> int:
        """End one session, or all; gives their number. Raises NoSuchSession."""
        owner = await self._owner(access_token)
        one = None if session_id is None else _uuid(session_id)
        revoked = await self._repository.revoke(owner.user.id, one, self._clock())
        if session_id is not None and not revoked:
            raise NoSuchSession("there is no such session")
        return revoked

    async def change_password(self, access_token: str, current: str, new: str) -> None:
        """End all sessions but the token's. Raises InvalidInput, NotAllowed, TooManyTries, Overloaded."""
        owner = await self._owner(access_token)
        new = checked_password(new, owner.user.name)
        await self._check_password(owner.user, current)
        kept = owner.session.id if owner.session else None
        hashed = await self._hasher.hash(new)
        if not await self._repository.change_password(owner.user, hashed, kept, self._clock()):
            raise NotAllowed(WRONG_PASSWORD)

    async def confirm_deletion(self, access_token: str, password: str) -> str:
        """A ticket for `delete`. Raises NotAllowed, TooManyTries, Overloaded.

        Within 15 minutes of the session's login the password may be left out.
        """
        owner = await self._owner(access_token)
        if password:
            await self._check_password(owner.user, password)
        elif owner.session is None or self._clock() - owner.session.created_at > RECENT:
            raise NotAllowed("the password is needed: the login was more than 15 minutes ago")
        return self._access.keys.sign(_TICKET, _TICKET_TTL_S, sub=str(owner.user.id))[0]

    async def delete(self, ticket: str) -> None:
        """Delete the account of a ticket; again is no error. Raises NotAuthenticated."""
        try:
            claims = self._access.keys.verify(ticket, _TICKET)
        except InvalidToken as error:
            raise NotAuthenticated(str(error)) from error
        await self._repository.delete(uuid.UUID(claims["sub"]))

    async def _owner(self, access_token: str) -> Owner:
        try:
            claims = self._access.verify(access_token)
        except InvalidToken as error:
            raise NotAuthenticated(str(error)) from error
        user = await self._repository.user(uuid.UUID(claims.sub))
        if user is None:
            raise NotAuthenticated("there is no such account any more")
        sessions = await self._repository.sessions(user.id, self._clock())
        own = next((one for one in sessions if str(one.id) == claims.sid), None)
        if claims.sid is not None and own is None:
            raise NotAuthenticated("the session has ended")
        return Owner(user, own, sessions)

    async def _check_password(self, user: User, password: str) -> None:
        # Only who has a token of the account gets here, so nobody else can use these tries up.
        attempt = await self._throttle.enter_known(keys_of(user.name, f"owner {user.id}"))
        try:
            right = await self._hasher.matches(password, user.password_hash, attempt.waited_s)
        except Overloaded:
            await self._throttle.forgive(attempt)
            raise
        if not right:
            raise NotAllowed(WRONG_PASSWORD)
        await self._throttle.reset(attempt)


def _uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError as error:
        raise NoSuchSession("there is no such session") from error
