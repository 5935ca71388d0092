"""Who is calling, and from where: Bearer tokens, addresses and origins."""

import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers

from api.http import problem
from api.profile.auth_client import Visitor
from api.profile.errors import NotAuthenticated
from api.tokens import AccessTokens, Claims, InvalidToken

REFRESH_COOKIE = "refreshToken"
MAX_REFRESH_TOKEN = 512  # ours are shorter, and what is longer may not fit into a gRPC message
_OURSELVES = ("127.0.0.1", "[::1]")
_USUAL_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True)
class User:
    """Who a valid access token speaks for."""

    id: uuid.UUID
    name: str


@dataclass(frozen=True)
class Owner:
    """A user with the access token itself, for calls that the authorization service is to answer for them."""

    user: User
    token: str


def user_of(claims: Claims) -> User:
    """The user of a token's claims."""
    return User(uuid.UUID(claims.sub), claims.name)


def owner(tokens: AccessTokens) -> Callable[..., Awaitable[Owner]]:
    """A dependency that gives the caller with the token. Raises NotAuthenticated.

    A coroutine, since FastAPI takes others to a thread, which costs more than the check.
    """
    scheme = HTTPBearer(auto_error=False, bearerFormat="JWT", description="an access token from login or refresh")

    async def caller(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)]) -> Owner:
        if credentials is None:
            raise NotAuthenticated("an access token is needed: Authorization: Bearer <accessToken>")
        try:
            return Owner(user_of(tokens.verify(credentials.credentials)), credentials.credentials)
        except InvalidToken as error:
            raise NotAuthenticated(str(error)) from error

    return caller


def bearer(tokens: AccessTokens) -> Callable[..., Awaitable[User]]:
    """A dependency that gives the caller. Raises NotAuthenticated."""

    async def caller(found: Annotated[Owner, Depends(owner(tokens))]) -> User:
        return found.user

    return caller


def visitor(request: Request) -> Visitor:
    """Where a request comes from; a proxy's word counts only if it is among TRUSTED_PROXIES."""
    address = request.client.host if request.client else ""
    token = request.cookies.get(REFRESH_COOKIE, "")
    return Visitor(address, request.headers.get("user-agent", "")[:200], token[:MAX_REFRESH_TOKEN])


def unauthorized(detail: str) -> Response:
    """A 401 as RFC 9110 wants it."""
    return problem(401, detail, {"WWW-Authenticate": "Bearer"})


async def not_authenticated(request: Request, error: Exception) -> Response:
    """The handler of NotAuthenticated."""
    return unauthorized(str(error))


class Origins:
    """Which pages may open a WebSocket: our own, and those allowed (`https://portfolio.example`, or `*` for all)."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = {origin.rstrip("/").lower() for origin in allowed}

    def allow(self, headers: Headers) -> bool:
        """Programs send no Origin; a browser's page must be one of ours."""
        origin = headers.get("origin")
        if origin is None or "*" in self._allowed:
            return True
        origin = origin.strip().lower()
        return origin in self._allowed or _is_own(origin, headers.get("host", "").lower())


def _is_own(origin: str, host: str) -> bool:
    """Does the page come from the address that is asked? localhost and 127.0.0.1 are the same there."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.scheme not in _USUAL_PORTS or not parts.netloc:
        return False
    usual = _USUAL_PORTS[parts.scheme]
    return _authority(parts.netloc, usual) == _authority(host, usual)


def _authority(text: str, usual_port: str) -> str:
    text = text.removesuffix(usual_port)
    for name in _OURSELVES:
        if text == name or text.startswith(f"{name}:"):
            return "localhost" + text.removeprefix(name)
    return text
