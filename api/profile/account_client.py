"""What the authorization service does for the owner of an account, over the channel of `AuthClient`."""

from dataclasses import dataclass
from datetime import UTC, datetime

from api.profile.auth_client import AuthClient
from protos import auth_pb2


@dataclass(frozen=True)
class SessionRow:
    """A login that can still be refreshed."""

    id: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    current: bool
    address: str
    user_agent: str


class AccountClient:
    """Raises NotAuthenticated for a bad or ended access token, NotAvailable, and what each method names."""

    def __init__(self, auth: AuthClient) -> None:
        self._auth = auth

    async def sessions(self, access_token: str) -> list[SessionRow]:
        """The owner's, the newest first."""
        request = auth_pb2.ListSessionsRequest(access_token=access_token)
        answer: auth_pb2.ListSessionsResponse = await self._auth.call("ListSessions", request)
        return [
            SessionRow(
                one.id,
                _time(one.created_at_ms),
                _time(one.last_used_at_ms),
                _time(one.expires_at_ms),
                one.current,
                one.address,
                one.user_agent,
            )
            for one in answer.sessions
        ]

    async def revoke(self, access_token: str, session_id: str = "") -> int:
        """End one session, or all; gives their number. Raises NotFound."""
        request = auth_pb2.RevokeSessionsRequest(access_token=access_token, session_id=session_id)
        answer: auth_pb2.RevokeSessionsResponse = await self._auth.call("RevokeSessions", request)
        return answer.revoked

    async def change_password(self, access_token: str, current: str, new: str) -> None:
        """End all other sessions too. Raises InvalidInput, NotAllowed, TooManyRequests."""
        request = auth_pb2.ChangePasswordRequest(access_token=access_token, current_password=current, new_password=new)
        await self._auth.call("ChangePassword", request)

    async def confirm_deletion(self, access_token: str, password: str) -> str:
        """The ticket for `delete`. Raises NotAllowed, TooManyRequests."""
        request = auth_pb2.ConfirmDeletionRequest(access_token=access_token, password=password)
        answer: auth_pb2.ConfirmDeletionResponse = await self._auth.call("ConfirmDeletion", request)
        return answer.ticket

    async def delete(self, ticket: str) -> None:
        """Idempotent. Raises NotAuthenticated for a ticket that is too old."""
        await self._auth.call("DeleteAccount", auth_pb2.DeleteAccountRequest(ticket=ticket))


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
