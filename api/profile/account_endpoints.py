"""`/api/v1/auth/sessions`, `/password` and `/account`: what the owner of an account does with it."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Path, Response

from api.http import StrictJsonRoute, problem_responses
from api.profile.schemas import Confirmation, Message, NewPassword, Session
from api.profile.security import Owner
from api.profile.service import ProfileService


def account_router(
    service: ProfileService, caller: Callable[..., Awaitable[Owner]], cookie: dict[str, Any]
) -> APIRouter:
    """The calls; `cookie` names the refresh cookie, which ends with its session."""
    router = APIRouter(prefix="/api/v1/auth", tags=["account"], route_class=StrictJsonRoute)
    Caller = Annotated[Owner, Depends(caller)]

    @router.get("/sessions", responses=problem_responses(401, 413, 429, 431, 503))
    async def sessions(owner: Caller) -> list[Session]:
        """The caller's logins that can still be refreshed, the newest first."""
        return [Session.model_validate(one) for one in await service.sessions(owner.token)]

    @router.delete("/sessions", responses=problem_responses(401, 413, 429, 431, 503))
    async def revoke_all(owner: Caller, response: Response) -> Message:
        """End all of them, this one too; access tokens run out by themselves."""
        await service.revoke_sessions(owner.token)
        response.delete_cookie(**cookie)
        return Message(message="sessions revoked")

    @router.delete("/sessions/{id}", responses=problem_responses(401, 404, 413, 422, 429, 431, 503))
    async def revoke_one(owner: Caller, id: Annotated[str, Path(min_length=1, max_length=64)]) -> Message:
        """End one of them."""
        await service.revoke_sessions(owner.token, id)
        return Message(message="session revoked")

    @router.post("/password", responses=problem_responses(401, 403, 413, 422, 429, 431, 503))
    async def change_password(owner: Caller, body: NewPassword) -> Message:
        """All other sessions end."""
        await service.change_password(owner.token, body.currentPassword, body.newPassword)
        return Message(message="password changed")

    @router.delete(
        "/account",
        responses={
            202: {"model": Message, "description": "The profile is deleted; the account will be, in a while"},
            **problem_responses(401, 403, 413, 422, 429, 431, 503),
        },
    )
    async def delete_account(
        owner: Caller, response: Response, body: Annotated[Confirmation | None, Body()] = None
    ) -> Message:
        """The account, its profile and all coins. The password may be left out within 15 minutes of the login."""
        finished = await service.delete_account(owner.user.id, owner.token, (body and body.password) or "")
        response.delete_cookie(**cookie)
        if not finished:
            response.status_code = 202
        return Message(message="account deleted" if finished else "account is being deleted")

    return router
