"""Who is calling, and from where: Bearer tokens, origins, and the headers that keep browsers careful."""

import uuid
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Depends, Request, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.http import problem
from api.profile.errors import NotAuthenticated
from api.tokens import AccessTokens, Claims, InvalidToken

_CAREFUL = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
_API_ONLY = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
_OURSELVES = ("127.0.0.1", "[::1]")
_USUAL_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True)
class User:
    """Who a valid access token speaks for."""

    id: uuid.UUID
    name: str


def user_of(claims: Claims) -> User:
    """The user of a token's claims."""
    return User(uuid.UUID(claims.sub), claims.name)


def bearer(tokens: AccessTokens) -> Callable[..., Awaitable[User]]:
    """A dependency that gives the caller. Raises NotAuthenticated.

    A coroutine, since FastAPI takes others to a thread, which costs more than the check.
    """
    scheme = HTTPBearer(auto_error=False, bearerFormat="JWT", description="an access token from login or refresh")

    async def caller(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(scheme)]) -> User:
        if credentials is None:
            raise NotAuthenticated("an access token is needed: Authorization: Bearer <accessToken>")
        try:
            return user_of(tokens.verify(credentials.credentials))
        except InvalidToken as error:
            raise NotAuthenticated(str(error)) from error

    return caller


def unauthorized(detail: str) -> Response:
    """A 401 as RFC 9110 wants it."""
    return problem(401, detail, {"WWW-Authenticate": "Bearer"})


async def not_authenticated(request: Request, error: Exception) -> Response:
    """The handler of NotAuthenticated."""
    return unauthorized(str(error))


class Origins:
    """Which pages may open a WebSocket: our own, and those allowed by name (`https://portfolio.example`)."""

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = {origin.rstrip("/").lower() for origin in allowed}

    def allow(self, headers: Headers) -> bool:
        """Programs send no Origin; a browser's page must be one of ours."""
        origin = headers.get("origin")
        if origin is None:
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


class SecurityHeaders:
    """ASGI middleware that adds them to every HTTP answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        added = _CAREFUL | (_API_ONLY if scope["path"].startswith("/api/") else {})

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(added)
            await send(message)

        await self._app(scope, receive, careful)
