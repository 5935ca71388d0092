"""The authorization service over gRPC: every call has a deadline, and none is made while the service is away.

Only what can't do harm twice is tried twice: a second Register would call its own name taken, and a second
RefreshToken would be the use of a used token.
"""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn, TypeVar

import grpc
from prometheus_client import Gauge

from api.profile.breaker import Breaker
from api.profile.errors import (
    Conflict,
    InvalidInput,
    NotAllowed,
    NotAuthenticated,
    NotAvailable,
    NotFound,
    ProfileError,
    TooManyRequests,
)
from infra.tls import Tls, grpc_channel_credentials
from protos import auth_pb2, auth_pb2_grpc

DEADLINE_S = 5.0
RETRY_AFTER_S = 0.1
OPEN_AFTER, OPEN_FOR_S = 3, 2.0  # failures in a row; then it is asked every two seconds
_OPTIONS = [
    ("grpc.enable_http_proxy", 0),  # a neighbour, not the Internet
    ("grpc.enable_retries", 0),  # a refresh token is used up by the first try
    # A service that comes back is found within seconds; gRPC's own backoff grows to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
]
_ERRORS: dict[grpc.StatusCode, type[ProfileError]] = {
    grpc.StatusCode.ALREADY_EXISTS: Conflict,
    grpc.StatusCode.UNAUTHENTICATED: NotAuthenticated,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.PERMISSION_DENIED: NotAllowed,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.RESOURCE_EXHAUSTED: TooManyRequests,
}

OPEN = Gauge("bff_authorization_circuit_open", "Whether the authorization service is not asked, being away")

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class TokenPair:
    """What a login or a refresh gives."""

    access_token: str
    refresh_token: str
    refresh_expires_at_ms: int


@dataclass(frozen=True)
class Visitor:
    """Whom a call is made for: IP address, User-Agent, and the refresh token of an earlier session."""

    address: str = ""
    user_agent: str = ""
    refresh_token: str = ""


class AuthClient:
    """Raises the errors of `api.profile.errors`: the service's own answers, or NotAvailable when there is none."""

    def __init__(self, address: str, tls: Tls | None = None) -> None:
        self._address = address
        self._tls = tls
        self._breaker = Breaker(OPEN_AFTER, OPEN_FOR_S)
        OPEN.set_function(lambda: self._breaker.open)

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        # A channel belongs to the event loop that runs when it is made.
        if self._tls:
            return grpc.aio.secure_channel(self._address, grpc_channel_credentials(self._tls), options=_OPTIONS)
        return grpc.aio.insecure_channel(self._address, options=_OPTIONS)

    @cached_property
    def _stub(self) -> Any:
        return auth_pb2_grpc.AuthServiceStub(self._channel)  # type: ignore[no-untyped-call]

    async def call(self, method: str, request: Any) -> Any:
        """The answer of a method of the service."""
        return await self._call(getattr(self._stub, method), request)

    async def register(self, name: str, password: str, visitor: Visitor) -> uuid.UUID:
        """The new user's id. Raises Conflict for a taken name, InvalidInput."""
        request = auth_pb2.RegisterRequest(name=name, password=password, caller=_caller(visitor))
        return uuid.UUID((await self._call(self._stub.Register, request)).user_id)

    async def login(self, name: str, password: str, visitor: Visitor) -> TokenPair:
        """Raises NotAuthenticated, TooManyRequests."""
        request = auth_pb2.LoginRequest(name=name, password=password, caller=_caller(visitor))
        return _pair(await self._call(self._stub.Login, request, tries=2))

    async def refresh(self, refresh_token: str) -> TokenPair:
        """Exchange a refresh token. Raises NotAuthenticated."""
        request = auth_pb2.RefreshTokenRequest(refresh_token=refresh_token)
        return _pair(await self._call(self._stub.RefreshToken, request))

    async def logout(self, refresh_token: str) -> None:
        """Revoke the token's family."""
        await self._call(self._stub.Logout, auth_pb2.LogoutRequest(refresh_token=refresh_token), tries=2)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close(None)

    async def _call(self, method: Callable[..., Awaitable[T]], request: Any, tries: int = 1) -> T:
        """The answer. Raises the errors of `api.profile.errors`."""
        return await self._breaker.call(lambda: _answer(method, request, tries))


def _caller(visitor: Visitor) -> auth_pb2.Caller:
    return auth_pb2.Caller(address=visitor.address, user_agent=visitor.user_agent, refresh_token=visitor.refresh_token)


def _pair(response: auth_pb2.TokenResponse) -> TokenPair:
    return TokenPair(response.access_token, response.refresh_token, response.refresh_expires_at_ms)


async def _answer(method: Callable[..., Awaitable[T]], request: Any, tries: int) -> T:
    while True:
        tries -= 1
        try:
            return await method(request, timeout=DEADLINE_S)
        except grpc.aio.AioRpcError as error:
            if not tries or error.code() is not grpc.StatusCode.UNAVAILABLE:
                _raise_for(error)
        await asyncio.sleep(RETRY_AFTER_S)


def _raise_for(error: grpc.aio.AioRpcError) -> NoReturn:
    found = _ERRORS.get(error.code())
    if found is None:
        log.warning("the authorization service answers %s: %s", error.code().name, error.details())
        raise NotAvailable("the authorization service does not answer") from error
    metadata: list[Any] = list(error.trailing_metadata() or ())
    told = next((str(value) for key, value in metadata if key == "retry-after"), "")
    if found is TooManyRequests and not told:  # gRPC's own word: the service tells when to come again
        raise InvalidInput("the request is too long") from error
    translated = found(error.details() or error.code().name)
    if told.isdigit():
        translated.retry_after_s = int(told)
    raise translated from error
