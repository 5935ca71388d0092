"""ClickHouse's HTTP interface around the chDB engine: `python -m infra.local.clickhouse_server --data DIR`.

Ordinary clients (clickhouse-connect, curl, a browser) work unchanged. What differs from a ClickHouse server:
sessions hold no state (`session_id` is accepted and ignored), there is one user, and results are sent whole.

https://clickhouse.com/docs/interfaces/http is the source of the rules here.
"""

import argparse
import asyncio
import base64
import binascii
import fcntl
import hmac
import logging
import os
import signal
import sys
import uuid
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from infra.local.clickhouse_engine import Answer, Engine, EngineError, Query
from infra.local.clickhouse_guard import is_foreign
from infra.local.clickhouse_http import CONTENT_TYPES, compress, decompress, status_of
from infra.stores import CLICKHOUSE_PREFLIGHT, CLICKHOUSE_USER

log = logging.getLogger(__name__)
WORKERS = 4
METHODS = ["GET", "POST", "HEAD", "OPTIONS"]
# URL parameters of the protocol; every other one is a setting of the query.
PROTOCOL = {
    "query", "query_id", "database", "user", "password", "quota_key", "role", "default_format",
    "session_id", "session_timeout", "session_check", "stacktrace",
    "compress", "decompress", "client_protocol_version",
    "buffer_size", "wait_end_of_query", "add_http_cors_header",
    "enable_http_compression", "http_zlib_compression_level",
    "send_progress_in_http_headers", "http_headers_progress_interval_ms",
    "cancel_http_readonly_queries_on_client_close",
    "async_insert", "wait_for_async_insert",
}  # fmt: skip


class ClickHouse:
    """The handlers, over one engine; queries run in threads, so the event loop always answers."""

    def __init__(self, engine: Engine, password: str) -> None:
        self._engine = engine
        self._password = password
        self._threads = ThreadPoolExecutor(WORKERS, thread_name_prefix="query")

    def close(self) -> None:
        """Let the running queries end, then close the engine's files."""
        self._threads.shutdown(cancel_futures=True)
        self._engine.close()

    async def ping(self, request: Request) -> Response:
        """`/ping` and `/replicas_status`: up, without a password."""
        return Response("Ok.\n", headers=_cors(request))

    async def handle(self, request: Request) -> Response:
        """`/`: a query, from `?query=`, the body, or the former before the latter."""
        if is_foreign(request.headers.get("origin"), request.headers.get("host")):
            return Response("Pages of other machines have no access.\n", 403)
        if request.method == "OPTIONS":
            return Response(status_code=204, headers=CLICKHOUSE_PREFLIGHT)
        if request.method == "HEAD" or (request.method == "GET" and "query" not in request.query_params):
            return Response("Ok.\n", headers=_cors(request))
        query_id = request.query_params.get("query_id") or str(uuid.uuid4())
        headers = {"X-ClickHouse-Query-Id": query_id, "X-ClickHouse-Timezone": "UTC", **_cors(request)}
        try:
            self._authenticate(request)
            query = _query(request, await request.body())
            answer = await asyncio.get_running_loop().run_in_executor(self._threads, self._engine.run, query)
        except EngineError as error:
            headers["X-ClickHouse-Exception-Code"] = str(error.code)
            return Response(f"{error}\n", status_of(error.code), headers)
        return _respond(request, answer, headers)

    def _authenticate(self, request: Request) -> None:
        user, password = _credentials(request)
        same = hmac.compare_digest(password.encode(), self._password.encode())
        if user != CLICKHOUSE_USER or not same:
            raise EngineError(
                516,
                f"Code: 516. DB::Exception: {user}: Authentication failed: password is incorrect, "
                "or there is no user with such name. (AUTHENTICATION_FAILED)",
            )


def _credentials(request: Request) -> tuple[str, str]:
    """(user, password) from the X-ClickHouse headers, HTTP Basic or the URL; a missing user is `default`."""
    headers, parameters = request.headers, request.query_params
    if "x-clickhouse-user" in headers or "x-clickhouse-key" in headers:
        return headers.get("x-clickhouse-user", CLICKHOUSE_USER), headers.get("x-clickhouse-key", "")
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            user, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return "", ""
        return user or CLICKHOUSE_USER, password
    return parameters.get("user") or CLICKHOUSE_USER, parameters.get("password", "")


def _query(request: Request, body: bytes) -> Query:
    parameters = request.query_params
    try:
        body = decompress(body, request.headers.get("content-encoding", ""))
    except ValueError as error:
        raise EngineError(354, f"Code: 354. DB::Exception: {error}. (ZLIB_INFLATE_FAILED)") from error
    in_url = parameters.get("query", "").encode()
    settings = {k: v for k, v in parameters.items() if k not in PROTOCOL and not k.startswith("param_")}
    return Query(
        text=in_url + b"\n" + body if in_url and body else in_url or body,
        parameters={k.removeprefix("param_"): v for k, v in parameters.items() if k.startswith("param_")},
        settings=settings,
        database=parameters.get("database") or request.headers.get("x-clickhouse-database", ""),
        default_format=parameters.get("default_format") or request.headers.get("x-clickhouse-format", "TabSeparated"),
        read_only=request.method == "GET",
    )


def _respond(request: Request, answer: Answer, headers: dict[str, str]) -> Response:
    headers["X-ClickHouse-Summary"] = answer.summary()
    if answer.format:
        headers["X-ClickHouse-Format"] = answer.format
    body = answer.body
    if request.query_params.get("enable_http_compression") in ("1", "true"):
        body, encoding = compress(body, request.headers.get("accept-encoding", ""))
        if encoding:
            headers["Content-Encoding"] = encoding
    media_type = CONTENT_TYPES.get(answer.format, "text/plain; charset=UTF-8")
    return Response(body, headers=headers, media_type=media_type)


def _cors(request: Request) -> Mapping[str, str]:
    """As ClickHouse: other origins may read only where the client asks with add_http_cors_header=1."""
    asked = request.query_params.get("add_http_cors_header") == "1"
    return {"Access-Control-Allow-Origin": "*"} if asked and "origin" in request.headers else {}


def create_app(data: Path, password: str) -> Starlette:
    """The ASGI app; the engine opens `data` at start-up and closes it at shutdown."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        server = ClickHouse(Engine(data), password)
        app.router.routes += [
            Route("/ping", server.ping),
            Route("/replicas_status", server.ping),
            Route("/", server.handle, methods=METHODS),
        ]
        yield
        server.close()

    return Starlette(lifespan=lifespan)


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description="ClickHouse's HTTP interface around chDB")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8123)
    parser.add_argument("--host", default="127.0.0.1")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    arguments.data.mkdir(parents=True, exist_ok=True)
    with (arguments.data / "server.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another server uses {arguments.data}")
        # uvicorn shuts down in order, then raises the signal again for the handler before its own: exit 0.
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: sys.exit(0))
        # The engine takes a path for a URL (`?` ends it), so it gets one without surprises.
        os.chdir(arguments.data)
        app = create_app(Path("engine"), os.environ.get("CLICKHOUSE_PASSWORD") or "postgres")
        uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
