"""The process: health, reflection, start and stop, a database that comes late or goes away."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from auth_parts import PASSWORD, SECRET, Auth
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from sqlalchemy import URL, text

from api.auth.database import Database
from api.auth.server import AuthServer
from protos import auth_pb2, auth_pb2_grpc

ROOT = Path(__file__).parents[3]
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def health_of(channel: grpc.aio.Channel, service: str = "") -> int:
    request = health_pb2.HealthCheckRequest(service=service)
    return int((await health_pb2_grpc.HealthStub(channel).Check(request, timeout=30, wait_for_ready=True)).status)


async def becomes(channel: grpc.aio.Channel, status: int) -> None:
    async with asyncio.timeout(30):
        while await health_of(channel) != status:  # noqa: ASYNC110 - it is another process' state
            await asyncio.sleep(0.05)


async def test_health_is_serving_for_the_server_and_the_service(auth: Auth) -> None:
    await becomes(auth.channel, SERVING)
    assert await health_of(auth.channel, "auth.v1.AuthService") == SERVING


async def test_reflection_lists_the_services(auth: Auth) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(auth.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async for answer in stub.ServerReflectionInfo(iter([request])):
        names = {service.name for service in answer.list_services_response.service}
        assert {"auth.v1.AuthService", "grpc.health.v1.Health"} <= names


async def test_a_message_too_long_is_refused(auth: Auth) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await auth.stub.Login(auth_pb2.LoginRequest(name="x" * 140_000, password=PASSWORD))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_taken_port_is_an_error(auth: Auth) -> None:
    second = AuthServer(auth.service, auth.accounts, auth.database, "127.0.0.1", auth.server.port)
    with pytest.raises(RuntimeError):
        await second.start()


class Gate:
    """A TCP proxy that can be shut: a database that goes away and comes back, at one address.

    It listens all the time, since a port given back may be taken by somebody else.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = host, port
        self._writers: set[asyncio.StreamWriter] = set()
        self.is_open = False
        self.port = 0

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield
        finally:
            self.shut()
            server.close()

    def open(self) -> None:
        self.is_open = True

    def shut(self) -> None:
        self.is_open = False
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection(*self._target)
        self._writers |= {writer, other_writer}
        if not self.is_open:
            self.shut()
        await asyncio.gather(self._pump(reader, other_writer), self._pump(other_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@asynccontextmanager
async def serving(auth: Auth, database: Database) -> AsyncIterator[grpc.aio.Channel]:
    server = AuthServer(auth.service, auth.accounts, database, "127.0.0.1", 0)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield channel
    finally:
        await server.stop()
        await database.close()


async def test_health_follows_the_database(auth: Auth, auth_url: URL) -> None:
    gate = Gate(auth_url.host or "", auth_url.port or 0)
    async with (
        gate.listening(),
        serving(auth, Database(auth_url.set(host="127.0.0.1", port=gate.port))) as channel,
    ):
        await becomes(channel, NOT_SERVING)
        for _ in range(2):
            gate.open()
            await becomes(channel, SERVING)
            gate.shut()
            await becomes(channel, NOT_SERVING)


async def test_without_a_database_calls_are_unavailable_and_say_when_to_retry(auth: Auth, auth_url: URL) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    auth.repository._database = Database(auth_url.set(port=port))
    for request, method in (
        (auth_pb2.RegisterRequest(name="late", password=PASSWORD), auth.stub.Register),
        (auth_pb2.LoginRequest(name="late", password=PASSWORD), auth.stub.Login),
        (auth_pb2.RefreshTokenRequest(refresh_token="x"), auth.stub.RefreshToken),
        (auth_pb2.LogoutRequest(refresh_token="x"), auth.stub.Logout),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await method(request)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert ("retry-after", "2") in tuple(caught.value.trailing_metadata() or ())


async def test_too_many_hashes_at_once_are_turned_away_and_refreshes_are_not(auth: Auth) -> None:
    await auth.stub.Register(auth_pb2.RegisterRequest(name="patient", password=PASSWORD))
    login = auth_pb2.LoginRequest(name="patient", password=PASSWORD)
    session = await auth.stub.Login(login)
    release = threading.Event()
    busy = [asyncio.create_task(auth.hasher._in_thread(release.wait)) for _ in range(16)]
    try:
        await asyncio.sleep(0)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await auth.stub.Login(login)
        # Whoever is turned away has cost no query, and is not counted as a failure.
        async with auth.database.transaction() as connection:
            assert (
                await connection.execute(text("SELECT coalesce(sum(failures), 0) FROM login_failures"))
            ).scalar_one() == 0
        await auth.stub.RefreshToken(auth_pb2.RefreshTokenRequest(refresh_token=session.refresh_token))
    finally:
        release.set()
        await asyncio.gather(*busy)
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ("retry-after", "2") in tuple(caught.value.trailing_metadata() or ())
    await auth.stub.Login(login)


@contextmanager
def process(url: URL, **changes: str) -> Iterator[subprocess.Popen[str]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = os.environ | {
        "GRPC_PORT": str(port),
        "POSTGRES_HOST": str(url.host),
        "POSTGRES_PORT": str(url.port),
        "POSTGRES_USER": str(url.username),
        "POSTGRES_PASSWORD": str(url.password),
        "POSTGRES_DB": str(url.database),
        "JWT_SECRET": SECRET,
    }
    command = [sys.executable, "-m", "api.auth.server"]
    started = subprocess.Popen(command, env=env | changes, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    try:
        started.port = port  # type: ignore[attr-defined]
        yield started
    finally:
        started.kill()
        started.communicate()


async def test_several_processes_start_together_and_stop_with_exit_0(postgres: Any, auth_url: URL) -> None:
    url = auth_url.set(database=postgres.create_database("auth_db"))
    with process(url) as one, process(url) as two:
        for started in (one, two):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{started.port}") as channel:  # type: ignore[attr-defined]
                await becomes(channel, SERVING)
                stub = auth_pb2_grpc.AuthServiceStub(channel)
                await stub.Logout(auth_pb2.LogoutRequest(refresh_token="x"))
        for number, started in ((signal.SIGTERM, one), (signal.SIGINT, two)):
            started.send_signal(number)
            _, output = await asyncio.to_thread(started.communicate, timeout=10)
            assert started.returncode == 0, output
            assert "Traceback" not in output


async def test_a_process_without_its_database_says_so_and_still_stops(auth_url: URL) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with process(auth_url.set(port=port)) as started:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{started.port}") as channel:  # type: ignore[attr-defined]
            await becomes(channel, NOT_SERVING)
        assert started.stderr
        while f"PostgreSQL at 127.0.0.1:{port}" not in (line := await asyncio.to_thread(started.stderr.readline)):
            assert line
        started.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(started.wait, 10) == 0


async def test_a_schema_it_does_not_know_is_told(postgres: Any, auth_url: URL) -> None:
    database = postgres.create_database("auth_db")
    with psycopg.connect(postgres.conninfo(database), autocommit=True) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num text)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
    with process(auth_url.set(database=database)) as started:
        assert started.stderr
        while "9999" not in (line := await asyncio.to_thread(started.stderr.readline)):
            assert line
        async with grpc.aio.insecure_channel(f"127.0.0.1:{started.port}") as channel:  # type: ignore[attr-defined]
            assert await health_of(channel) == NOT_SERVING
        started.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(started.wait, 10) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"JWT_SECRET": "short"},
        {"JWT_SECRET": "change-me-change-me-change-me-change-me", "ENV": "production"},
    ],
)
def test_a_secret_that_is_no_secret_stops_the_start(auth_url: URL, changes: dict[str, str]) -> None:
    with process(auth_url, **changes) as started:
        _, output = started.communicate(timeout=30)
    assert started.returncode == 1
    assert "JWT_SECRET" in output
    assert "Traceback" not in output


def test_a_wrong_setting_is_named_and_secrets_are_not(auth_url: URL) -> None:
    with process(auth_url, JWT_ACCESS_TTL="soon", POSTGRES_PASSWORD_FILE="/nowhere/at/all") as started:
        _, output = started.communicate(timeout=30)
    assert started.returncode == 1
    assert "POSTGRES_PASSWORD_FILE" in output
    assert SECRET[:10] not in output


def test_a_taken_port_stops_the_start(auth_url: URL) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with process(auth_url, GRPC_PORT=port) as started:
            _, output = started.communicate(timeout=30)
    assert started.returncode == 1
    assert port in output
    assert "Traceback" not in output
