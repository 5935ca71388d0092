"""What every HTTP service of ours shares: problem details, limits, careful headers, health, a graceful server."""

import asyncio
import json
import logging
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, NoReturn

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.listening import listen

MAX_BODY_BYTES = 64 * 1024
MAX_HEAD_BYTES = 16 * 1024
HEAD_WITHIN_S = 10.0
BODY_WITHIN_S = 30.0
CAREFUL: Mapping[str, str] = MappingProxyType(
    {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"}
)
API_ONLY: Mapping[str, str] = MappingProxyType(
    {"Cache-Control": "no-store", "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'"}
)
PROBLEM_JSON = "application/problem+json"
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

log = logging.getLogger(__name__)


class FieldError(BaseModel):
    """One thing wrong with a request: where (`body.name`, `query.symbol`) and what."""

    location: str
    message: str


class Problem(BaseModel):
    """RFC 9457 problem details; `errors` only where single fields are wrong."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None


def problem(
    status: int, detail: str, headers: Mapping[str, str] | None = None, errors: list[FieldError] | None = None
) -> Response:
    """A problem answer; its title is the status' own phrase."""
    body = Problem(title=_phrase(status), status=status, detail=detail, errors=errors).model_dump(exclude_none=True)
    # A client can make us quote half a surrogate pair, which has no UTF-8.
    content = json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")
    return Response(content, status, dict(headers or {}), PROBLEM_JSON)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route, for OpenAPI: each status with a problem document."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"model": Problem, "description": _phrase(status), "content": {PROBLEM_JSON: {"schema": schema}}}
        for status in statuses
    }


def install_problems(app: FastAPI, statuses: Mapping[type[Exception], int] | None = None) -> None:
    """Answer every error as a problem document, refuse bodies over 64 KiB, and send nobody from `/x/` to `/x`.

    `statuses` is the service's table of domain errors; their text becomes `detail`, and an attribute
    `retry_after_s` of the error becomes Retry-After.
    """
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(Exception, _unexpected_error)
    for error_type, status in (statuses or {}).items():
        app.add_exception_handler(error_type, _domain_error(status))
    app.router.route_class = StrictJsonRoute
    app.router.redirect_slashes = False  # that of `/sessions/`, with its id left out, would end all sessions
    app.add_middleware(BodyLimit)
    app.add_middleware(HeadLimit)


def health_router(ready: Callable[[], Awaitable[str | None]]) -> APIRouter:
    """`/livez`, `/readyz` (= `/healthz`) and `/metrics`. `ready` gives None, or the reason for a 503."""
    router = APIRouter(include_in_schema=False)

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/readyz", response_model=None)
    @router.get("/healthz", response_model=None)
    async def readyz() -> dict[str, str] | Response:
        reason = await ready()
        return {"status": "ok"} if reason is None else problem(503, reason)

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return router


class StrictJsonRoute(APIRoute):
    """The `route_class` of every router that takes bodies: JSON is RFC 8259's, in UTF-8.

    Python's parser alone also takes UTF-16, UTF-32, encoded half characters, NaN and Infinity.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Called by FastAPI."""
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(_StrictJsonRequest(request.scope, request.receive))

        return strict


class _StrictJsonRequest(Request):
    async def json(self) -> Any:
        return json.loads((await self.body()).decode("utf-8-sig"), parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


class SecurityHeaders:
    """ASGI middleware: headers that keep browsers careful, on every HTTP answer; `more` for paths that begin with it.

    `https` adds that browsers are to come back over TLS only.
    """

    def __init__(self, app: ASGIApp, more: Mapping[str, Mapping[str, str]] | None = None, https: bool = False) -> None:
        self._app = app
        self._more = dict(more or {})
        self._always = dict(CAREFUL) | (
            {"Strict-Transport-Security": "max-age=31536000; includeSubDomains"} if https else {}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        added = dict(self._always)
        for start, headers in self._more.items():
            added |= headers if scope["path"].startswith(start) else {}

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(added)
            await send(message)

        await self._app(scope, receive, careful)


class HeadLimit:
    """ASGI middleware: 431 where a request's path and headers are too long together, for HTTP and WebSockets."""

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_HEAD_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and _head_bytes(scope) > self._max_bytes:
            answer = problem(431, f"the request's head may have at most {self._max_bytes} bytes")
            if scope["type"] == "websocket":
                await WebSocket(scope, receive, send).send_denial_response(answer)
            else:
                await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _head_bytes(scope: Scope) -> int:
    headers = sum(len(name) + len(value) for name, value in scope["headers"])
    return headers + len(scope.get("raw_path") or scope["path"]) + len(scope["query_string"])


class LimitedHttp(HttpToolsProtocol):
    """uvicorn's, but a head that does not end, in length or in time, ends the connection instead; a body, in time.

    uvicorn's own limit is on silence between requests, and anything that is sent ends it, be it an empty line.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Called by asyncio."""
        super().connection_made(transport)
        self._head_begins()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        if not self._in_head and not self._in_body:
            self._head_begins()
        if self._in_head:
            self._head_read += len(data)
        super().data_received(data)
        # One chunk may hold the end of the head and much of the body: then it is HeadLimit's.
        if self._in_head and self._head_read > 2 * MAX_HEAD_BYTES:
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nConnection: close\r\n\r\n")
            self.transport.close()

    def on_message_begin(self) -> None:
        """Called by the parser."""
        self._head_begins()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._in_head, self._in_body = False, True
        self._close_in(BODY_WITHIN_S)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        self._in_body = False
        self._stop_timer()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        """Called by uvicorn: from here on the connection is another protocol's."""
        self._stop_timer()
        super().handle_websocket_upgrade()

    def _head_begins(self) -> None:
        self._in_head, self._in_body, self._head_read = True, False, 0
        self._close_in(HEAD_WITHIN_S)

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _close_in(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self.transport.close)


UVICORN: dict[str, Any] = {
    "http": LimitedHttp,
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "timeout_graceful_shutdown": 5,
}


class BodyLimit:
    """ASGI middleware: takes in the whole body, up to a limit, before the application sees the request.

    What has been received is counted, so that a chunked body without Content-Length is limited too.
    """

    def __init__(self, app: ASGIApp, max_bytes: int = MAX_BODY_BYTES) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = await self._read(scope, receive)
        if request is None:
            answer = problem(413, f"the body may have at most {self._max_bytes} bytes")
            await answer(scope, receive, send)
            return
        pending = [request]

        async def replay() -> Message:
            return pending.pop() if pending else await receive()

        await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> Message | None:
        """The request as one message (or the client's leaving), None when it is too long."""
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared[:20]) > self._max_bytes:
            return None
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return message
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                return None
            if not message.get("more_body", False):
                return {"type": "http.request", "body": bytes(body), "more_body": False}


def serve(app: ASGIApp, host: str, port: int, **options: Any) -> None:
    """Run the application until SIGTERM or SIGINT, then finish open requests (5 s at most) and exit 0.

    A loopback host is served on ::1 too, where it exists. `options` go to `uvicorn.Config`.
    A port that is taken: exit 1 with a message.
    """
    # uvicorn stops gracefully and then raises the signal again for whoever handled it before.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        sockets = listen(host, port)
    except OSError as error:
        sys.exit(f"cannot listen on {host}:{port}: {error.strerror or error}")
    log.info("listening on http://%s:%d", host, sockets[0].getsockname()[1])
    server = uvicorn.Server(uvicorn.Config(app, **(UVICORN | options)))
    server.run(sockets)
    if not server.started:
        sys.exit(1)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    # FastAPI says 400 to a body that is not UTF-8, or is JSON beyond what Python's parser takes.
    if error.status_code == 400 and isinstance(error.__cause__, ValueError | RecursionError):
        return problem(422, "the body is not JSON in UTF-8")
    headers = error.headers
    if error.status_code == 405:
        # Starlette names the methods of the first route of that path only.
        headers = {**(headers or {}), "Allow": ", ".join(_allowed_methods(request))}
    return problem(error.status_code, str(error.detail), headers)


def _allowed_methods(request: Request) -> list[str]:
    routes = request.app.router.routes
    scopes = {method: dict(request.scope, method=method) for method in _METHODS}
    return [name for name, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in routes)]


async def _validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    errors = [_field_error(one) for one in error.errors()]
    detail = "; ".join(f"{one.location}: {one.message}" for one in errors[:5])
    return problem(422, detail, errors=errors)


def _field_error(error: Mapping[str, Any]) -> FieldError:
    where = error["loc"][:1] if error["type"] == "json_invalid" else error["loc"]
    # Never the input itself: it may be a password.
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "json_invalid":
        message = f"not JSON: {error['ctx']['error']}"
    return FieldError(location=".".join(str(part) for part in where), message=message)


def _domain_error(status: int) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def handler(request: Request, error: Exception) -> Response:
        retry_after_s = getattr(error, "retry_after_s", None)
        headers = None if retry_after_s is None else {"Retry-After": str(max(1, round(retry_after_s)))}
        return problem(status, str(error), headers)

    return handler


async def _unexpected_error(request: Request, error: Exception) -> Response:
    # Starlette raises the error again after this answer, so the server logs it with its trace.
    # This one does not pass SecurityHeaders: it is made outside of all middleware.
    return problem(500, "something went wrong here; the log says what", {**CAREFUL, **API_ONLY})
