"""`auth.v1.AuthService` over gRPC: converts, calls the service, converts."""

import logging
from collections.abc import Awaitable, Mapping
from typing import Any, NoReturn, TypeVar

import grpc
from prometheus_client import Counter

from api.auth.errors import AuthError, DatabaseAway, InvalidInput, NameTaken, NotAuthenticated, Overloaded
from api.auth.service import AuthService, Session
from protos import auth_pb2, auth_pb2_grpc

STATUS: Mapping[type[AuthError], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    NameTaken: grpc.StatusCode.ALREADY_EXISTS,
    NotAuthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DatabaseAway: grpc.StatusCode.UNAVAILABLE,
}
CALLS = Counter("auth_calls", "Calls answered, by method and gRPC status", ["method", "status"])

log = logging.getLogger(__name__)
T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    """Errors become gRPC statuses by one table; `retry-after` (seconds) is in the trailing metadata."""

    def __init__(self, service: AuthService) -> None:
        self._service = service

    async def Register(self, request: auth_pb2.RegisterRequest, context: Context) -> auth_pb2.RegisterResponse:
        user_id = await _answered("Register", context, self._service.register(request.name, request.password))
        return auth_pb2.RegisterResponse(user_id=str(user_id))

    async def Login(self, request: auth_pb2.LoginRequest, context: Context) -> auth_pb2.TokenResponse:
        session = await _answered("Login", context, self._service.login(request.name, request.password))
        return _tokens(session)

    async def RefreshToken(self, request: auth_pb2.RefreshTokenRequest, context: Context) -> auth_pb2.TokenResponse:
        session = await _answered("RefreshToken", context, self._service.refresh(request.refresh_token))
        return _tokens(session)

    async def Logout(self, request: auth_pb2.LogoutRequest, context: Context) -> auth_pb2.LogoutResponse:
        await _answered("Logout", context, self._service.logout(request.refresh_token))
        return auth_pb2.LogoutResponse()


def _tokens(session: Session) -> auth_pb2.TokenResponse:
    return auth_pb2.TokenResponse(
        access_token=session.access_token,
        refresh_token=session.refresh_token,
        access_expires_at_ms=session.access_expires_at_ms,
        refresh_expires_at_ms=session.refresh_expires_at_ms,
    )


async def _answered(method: str, context: Context, work: Awaitable[T]) -> T:
    """The result of `work`; its errors end the call with their status."""
    try:
        result = await work
    except AuthError as error:
        metadata = () if error.retry_after_s is None else (("retry-after", str(error.retry_after_s)),)
        await _aborted(method, context, STATUS[type(error)], str(error), metadata)
    except Exception:
        log.exception("%s failed", method)
        await _aborted(method, context, grpc.StatusCode.INTERNAL, "something went wrong here; the log says what")
    CALLS.labels(method, "OK").inc()
    return result


async def _aborted(
    method: str,
    context: Context,
    status: grpc.StatusCode,
    detail: str,
    metadata: tuple[tuple[str, str], ...] = (),
) -> NoReturn:
    CALLS.labels(method, status.name).inc()
    await context.abort(status, detail, metadata)
