"""The REST interface (contract section 3): converts, calls the service, converts."""

import time
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Cookie, Depends, Header, Query, Response

from api.http import StrictJsonRoute, problem_responses
from api.profile.auth_client import TokenPair, Visitor
from api.profile.errors import NotAuthenticated
from api.profile.schemas import (
    AccessToken,
    Coin,
    CoinChange,
    CoinName,
    Credentials,
    Message,
    Profile,
    TradedSymbol,
)
from api.profile.security import MAX_REFRESH_TOKEN, REFRESH_COOKIE, User, visitor
from api.profile.service import ProfileService

AUTH_PATH = "/api/v1/auth"
From = Annotated[Visitor, Depends(visitor)]
RefreshCookie = Annotated[str | None, Cookie(alias=REFRESH_COOKIE, description="set by login")]

OnceKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="names this request: a random text of the client's own, such as a UUID",
    ),
]


def refresh_cookie(*, secure: bool) -> dict[str, Any]:
    """What names the cookie of the refresh token, when it is set and when it is deleted."""
    return {"key": REFRESH_COOKIE, "path": AUTH_PATH, "httponly": True, "secure": secure, "samesite": "Strict"}


def auth_router(service: ProfileService, cookie: dict[str, Any]) -> APIRouter:
    """`/api/v1/auth`; the refresh token lives in a cookie that only these calls get."""
    router = APIRouter(prefix=AUTH_PATH, tags=["auth"], route_class=StrictJsonRoute)

    def answer(response: Response, pair: TokenPair) -> AccessToken:
        life_s = max(0, pair.refresh_expires_at_ms // 1000 - int(time.time()))
        response.set_cookie(**cookie, value=pair.refresh_token, max_age=life_s)
        return AccessToken(accessToken=pair.access_token)

    @router.post("/register", status_code=201, responses=problem_responses(409, 413, 422, 429, 431, 503))
    async def register(body: Credentials, origin: From) -> Message:
        """A new user, with an empty profile."""
        await service.register(body.name, body.password, origin)
        return Message(message="user created successfully")

    @router.post("/login", responses=problem_responses(401, 413, 422, 429, 431, 503))
    async def login(body: Credentials, response: Response, origin: From) -> AccessToken:
        """An access token, and a refresh token as a cookie."""
        return answer(response, await service.login(body.name, body.password, origin))

    @router.post("/refresh", responses=problem_responses(401, 413, 422, 429, 431, 503))
    async def refresh(response: Response, token: RefreshCookie = None) -> AccessToken:
        """New tokens for the cookie's, which is used up by this."""
        if not token:
            raise NotAuthenticated(f"the cookie {REFRESH_COOKIE} is missing")
        if len(token) > MAX_REFRESH_TOKEN:
            raise NotAuthenticated("the refresh token is not valid")
        return answer(response, await service.refresh(token))

    @router.post("/logout", responses=problem_responses(413, 422, 429, 431, 503))
    async def logout(response: Response, token: RefreshCookie = None) -> Message:
        """Ends what the cookie's token could be exchanged for; access tokens run out by themselves."""
        if token and len(token) <= MAX_REFRESH_TOKEN:
            await service.logout(token)
        response.delete_cookie(**cookie)
        return Message(message="logged out successfully")

    return router


def profile_router(service: ProfileService, caller: Callable[..., Awaitable[User]]) -> APIRouter:
    """`/api/v1/profile` and `/api/v1/symbols`."""
    router = APIRouter(prefix="/api/v1", tags=["profile"], route_class=StrictJsonRoute)
    Caller = Annotated[User, Depends(caller)]

    @router.get("/profile", responses=problem_responses(401, 404, 413, 431, 503))
    async def profile(user: Caller) -> Profile:
        """The caller's coins."""
        return Profile.model_validate(await service.profile(user.id))

    @router.post("/profile", status_code=201, responses=problem_responses(401, 409, 413, 431, 503))
    async def create_profile(user: Caller) -> Message:
        """A profile for the token's user, where registration could not make it."""
        await service.create_profile(user.id, user.name)
        return Message(message="profile created successfully")

    @router.post("/profile/coins", responses=problem_responses(401, 404, 413, 422, 431, 503))
    async def change_coin(user: Caller, body: CoinChange, key: OnceKey = None) -> Coin:
        """Add to a coin, or take from it. To exactly zero: it stays, with quantity "0".

        Sent again with the same `Idempotency-Key` within 24 hours, it is answered as before and done once.
        """
        return Coin.model_validate(await service.change_coin(user.id, body.symbol, Decimal(body.quantity), key))

    @router.delete("/profile/coins", responses=problem_responses(401, 404, 413, 422, 431, 503))
    async def delete_coin(user: Caller, body: CoinName) -> Message:
        """Hold a coin no more; added again, it starts afresh."""
        await service.delete_coin(user.id, body.symbol)
        return Message(message="coin successfully deleted")

    @router.get("/symbols", responses=problem_responses(413, 422, 431, 503))
    async def symbols(
        q: Annotated[str, Query(max_length=32, description="part of the name, in any case")] = "",
    ) -> list[TradedSymbol]:
        """The pairs that can be held."""
        return [
            TradedSymbol(symbol=one.symbol.lower(), base=one.base, quote="USDT") for one in await service.symbols(q)
        ]

    return router
