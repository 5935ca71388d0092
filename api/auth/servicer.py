"""`auth.v1.AuthService` over gRPC: converts, calls the service, converts."""

import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, NoReturn, TypeVar
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError
from prometheus_client import Counter

from api.auth.account_repository import SessionRow
from api.auth.accounts import AccountService
from api.auth.errors import (
    AuthError,
    DatabaseAway,
    InvalidInput,
    NameTaken,
    NoSuchSession,
    NotAllowed,
    NotAuthenticated,
    Overloaded,
    TooManyTries,
)
from api.auth.service import AuthService, Caller, Session
from protos import auth_pb2, auth_pb2_grpc

STATUS: Mapping[type[AuthError], grpc.StatusCode] = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    NameTaken: grpc.StatusCode.ALREADY_EXISTS,
    NotAuthenticated: grpc.StatusCode.UNAUTHENTICATED,
    NotAllowed: grpc.StatusCode.PERMISSION_DENIED,
    NoSuchSession: grpc.StatusCode.NOT_FOUND,
    TooManyTries: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    DatabaseAway: grpc.StatusCode.UNAVAILABLE,
}
CALLS = Counter("auth_calls", "Calls answered, by method and gRPC status", ["method", "status"])

log = logging.getLogger(__name__)
T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]
_MALFORMED = object()


class MalformedMessages(grpc.aio.ServerInterceptor):  # type: ignore[misc,type-arg,unused-ignore]
    """Bytes that are no message of the method are the caller's error: INVALID_ARGUMENT, and no trace in the log."""

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Called by grpcio for each call."""
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler

        def decoded(data: bytes) -> Any:
            try:
                return handler.request_deserializer(data)
            except DecodeError:
                return _MALFORMED

        async def answer(request: Any, context: Context) -> Any:
            if request is _MALFORMED:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a message of this method")
            return await handler.unary_unary(request, context)

        return grpc.unary_unary_rpc_method_handler(answer, decoded, handler.response_serializer)


class AuthServicer(auth_pb2_grpc.AuthServiceServicer):
    """Errors become gRPC statuses by one table; `retry-after` (seconds) is in the trailing metadata."""

    def __init__(self, service: AuthService, accounts: AccountService) -> None:
        self._service = service
        self._accounts = accounts

    async def Register(self, request: auth_pb2.RegisterRequest, context: Context) -> auth_pb2.RegisterResponse:
        user_id = await _answered(
            "Register",
            context,
            self._service.register(request.name, request.password, _caller(request.caller, context)),
        )
        return auth_pb2.RegisterResponse(user_id=str(user_id))

    async def Login(self, request: auth_pb2.LoginRequest, context: Context) -> auth_pb2.TokenResponse:
        session = await _answered(
            "Login", context, self._service.login(request.name, request.password, _caller(request.caller, context))
        )
        return _tokens(session)

    async def RefreshToken(self, request: auth_pb2.RefreshTokenRequest, context: Context) -> auth_pb2.TokenResponse:
        session = await _answered("RefreshToken", context, self._service.refresh(request.refresh_token))
        return _tokens(session)

    async def Logout(self, request: auth_pb2.LogoutRequest, context: Context) -> auth_pb2.LogoutResponse:
        await _answered("Logout", context, self._service.logout(request.refresh_token))
        return auth_pb2.LogoutResponse()

    async def ListSessions(
        self, request: auth_pb2.ListSessionsRequest, context: Context
    ) -> auth_pb2.ListSessionsResponse:
        owner = await _answered("ListSessions", context, self._accounts.sessions(request.access_token))
        return auth_pb2.ListSessionsResponse(sessions=[_session(one, one == owner.session) for one in owner.sessions])

    async def RevokeSessions(
        self, request: auth_pb2.RevokeSessionsRequest, context: Context
    ) -> auth_pb2.RevokeSessionsResponse:
        work = self._accounts.revoke(request.access_token, request.session_id or None)
        return auth_pb2.RevokeSessionsResponse(revoked=await _answered("RevokeSessions", context, work))

    async def ChangePassword(
        self, request: auth_pb2.ChangePasswordRequest, context: Context
    ) -> auth_pb2.ChangePasswordResponse:
        work = self._accounts.change_password(request.access_token, request.current_password, request.new_password)
        await _answered("ChangePassword", context, work)
        return auth_pb2.ChangePasswordResponse()

    async def ConfirmDeletion(
        self, request: auth_pb2.ConfirmDeletionRequest, context: Context
    ) -> auth_pb2.ConfirmDeletionResponse:
        work = self._accounts.confirm_deletion(request.access_token, request.password)
        return auth_pb2.ConfirmDeletionResponse(ticket=await _answered("ConfirmDeletion", context, work))

    async def DeleteAccount(
        self, request: auth_pb2.DeleteAccountRequest, context: Context
    ) -> auth_pb2.DeleteAccountResponse:
        await _answered("DeleteAccount", context, self._accounts.delete(request.ticket))
        return auth_pb2.DeleteAccountResponse()


def _tokens(session: Session) -> auth_pb2.TokenResponse:
    return auth_pb2.TokenResponse(
        access_token=session.access_token,
        refresh_token=session.refresh_token,
        access_expires_at_ms=session.access_expires_at_ms,
        refresh_expires_at_ms=session.refresh_expires_at_ms,
    )


def _session(row: SessionRow, current: bool) -> auth_pb2.Session:
    return auth_pb2.Session(
        id=str(row.id),
        created_at_ms=_ms(row.created_at),
        last_used_at_ms=_ms(row.last_used_at),
        expires_at_ms=_ms(row.expires_at),
        current=current,
        address=row.address,
        user_agent=row.user_agent,
    )


def _ms(time: datetime) -> int:
    return int(time.timestamp() * 1000)


def _caller(told: auth_pb2.Caller, context: Context) -> Caller:
    """The caller that the peer tells of, or the peer itself: `ipv4:127.0.0.1:1`, `ipv6:%5B::1%5D:1`."""
    address = told.address or unquote(context.peer()).partition(":")[2].rpartition(":")[0].strip("[]")
    return Caller(address, told.user_agent, told.refresh_token)


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
