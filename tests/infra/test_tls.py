"""TLS by settings, with certificates made here: every client of ours speaks it, and refuses a stranger."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives import serialization
from pydantic import ValidationError
from redis.exceptions import ConnectionError as RedisAway
from sqlalchemy import text
from tls_parts import Certificates, make_certificates, tls_before

import api.dashboard.clickhouse
from api.auth.server import database_url as auth_url
from api.database import Database, DatabaseAway
from api.profile.app import create_app
from api.profile.app import database_url as profile_url
from api.profile.auth_client import AuthClient, Visitor
from api.profile.errors import NotAuthenticated, NotAvailable
from api.profile.redis_feed import RedisFeed
from api.socket.grpc_shell import GrpcServer, Health
from flows.connectors.clickhouse_table import Server
from flows.connectors.kafka_sink import Record
from flows.connectors.redis_sink import Place, Places, RedisSinkPart
from infra.probes import probe
from infra.settings import TLS_PARTS, Settings
from infra.tls import Tls, grpc_channel_credentials, grpc_server_credentials, kafka_security, use_kafka_tls
from protos import auth_pb2, auth_pb2_grpc


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Of an authority that we do not know."""
    return make_certificates(tmp_path_factory.mktemp("tls") / "strangers")


def wrong(ours: Certificates, strangers: Certificates) -> list[Tls]:
    """Another authority for the server, another one's certificate for the client, and no certificate at all."""
    return [Tls(strangers.ca, ours.cert, ours.key), Tls(ours.ca, strangers.cert, strangers.key), Tls(ours.ca)]


# Settings


@pytest.mark.parametrize("part", TLS_PARTS)
def test_the_files_come_from_the_environment(part: str, ours: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().tls(part) is None
    for name, value in ours.environment(part.upper()).items():
        monkeypatch.setenv(name, value)
    assert Settings().tls(part) == ours.tls
    monkeypatch.delenv(f"{part.upper()}_TLS_KEY")
    with pytest.raises(ValidationError, match="go together"):
        Settings()
    monkeypatch.setenv(f"{part.upper()}_TLS_KEY", "/nowhere/key.pem")
    with pytest.raises(ValidationError, match="there is no file /nowhere/key"):
        Settings()


@pytest.mark.parametrize("part", ["postgres", "redis", "kafka", "clickhouse"])
def test_a_store_needs_the_authority(part: str, ours: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CERT", "KEY"):
        monkeypatch.setenv(f"{part.upper()}_TLS_{name}", str(ours.key))
    with pytest.raises(ValidationError, match="_TLS_CA"):
        Settings()


@pytest.mark.parametrize("service", ["api.auth.server", "api.socket.server"])
def test_half_of_the_files_is_not_plain(service: str, ours: Certificates, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with an authority alone does not start, nor does a client with a certificate alone."""
    monkeypatch.setenv("GRPC_TLS_CA", str(ours.ca))
    monkeypatch.setenv("JWT_SECRET", "x" * 32)
    ended = subprocess.run([sys.executable, "-m", service], check=False, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "GRPC_TLS_CA: a gRPC server needs GRPC_TLS_CERT and GRPC_TLS_KEY too" in ended.stderr
    settings = Settings(grpc_tls_ca=None, grpc_tls_cert=ours.cert, grpc_tls_key=ours.key)
    with pytest.raises(ValueError, match="needs GRPC_TLS_CA too"):
        create_app(settings)


def test_files_that_cannot_be_used_are_named(
    ours: Certificates, strangers: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text.pem").write_text("not PEM")
    for name, value in ours.environment("REDIS").items():
        monkeypatch.setenv(name, value)
    pair = "REDIS_TLS_CERT, REDIS_TLS_KEY: can't be used"
    for name, file, match in (
        ("CA", tmp_path / "text.pem", "REDIS_TLS_CA: can't be used"),
        ("CERT", tmp_path / "text.pem", pair),
        ("KEY", tmp_path / "text.pem", pair),
        ("KEY", strangers.key, pair),
        ("KEY", encrypted(ours.key, tmp_path / "encrypted.pem"), pair),
    ):
        with monkeypatch.context() as changed:
            changed.setenv(f"REDIS_TLS_{name}", str(file))
            with pytest.raises(ValidationError, match=match):
                Settings()


def encrypted(key: Path, to: Path) -> Path:
    loaded = serialization.load_pem_private_key(key.read_bytes(), None)
    how = serialization.BestAvailableEncryption(b"secret")
    to.write_bytes(loaded.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how))
    return to


# gRPC


class Servicer(auth_pb2_grpc.AuthServiceServicer):
    async def Login(self, request: auth_pb2.LoginRequest, context: Any) -> auth_pb2.TokenResponse:
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "reached")
        raise AssertionError


@asynccontextmanager
async def authorization(tls: Tls) -> AsyncIterator[str]:
    """A gRPC server as `AuthServer` makes it."""
    server = grpc.aio.server()
    auth_pb2_grpc.add_AuthServiceServicer_to_server(Servicer(), server)  # type: ignore[no-untyped-call]
    port = server.add_secure_port("127.0.0.1:0", grpc_server_credentials(tls))
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


async def login(address: str, tls: Tls | None) -> None:
    client = AuthClient(address, tls)
    try:
        await client.login("ada", "password", Visitor())
    finally:
        await client.close()


async def test_grpc_with_tls(ours: Certificates, strangers: Certificates) -> None:
    async with authorization(Tls(None, ours.cert, ours.key)) as address:
        for tls in (Tls(ours.ca), ours.tls):
            with pytest.raises(NotAuthenticated, match="reached"):
                await login(address, tls)
        for bad in (None, Tls(strangers.ca)):
            with pytest.raises(NotAvailable):
                await login(address, bad)


async def test_grpc_with_mutual_tls(ours: Certificates, strangers: Certificates) -> None:
    async with authorization(ours.tls) as address:
        with pytest.raises(NotAuthenticated, match="reached"):
            await login(address, ours.tls)
        for bad in (None, *wrong(ours, strangers)):
            with pytest.raises(NotAvailable):
                await login(address, bad)


async def test_a_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    elsewhere = make_certificates(tmp_path / "elsewhere", "elsewhere.example")
    async with authorization(Tls(None, elsewhere.cert, elsewhere.key)) as address:
        with pytest.raises(NotAvailable):
            await login(address, Tls(elsewhere.ca))


async def test_the_socket_services_shell_speaks_mutual_tls(
    ours: Certificates, strangers: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpclib.config import Configuration

    health = Health()
    await health.servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    server = GrpcServer([health], Configuration())
    await server.start("127.0.0.1", 0, ssl=ours.tls.server_context())
    port = server._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
    try:

        async def ask(tls: Tls) -> int:
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", grpc_channel_credentials(tls)) as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                return int((await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)).status)

        assert await ask(ours.tls) == health_pb2.HealthCheckResponse.SERVING
        for bad in wrong(ours, strangers):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask(bad)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        # The health check of a container has the environment of its service.
        assert await asyncio.to_thread(probe, f"grpc://127.0.0.1:{port}") is not None
        for name, value in ours.environment("GRPC").items():
            monkeypatch.setenv(name, value)
        assert await asyncio.to_thread(probe, f"grpc://127.0.0.1:{port}") is None
    finally:
        server.close()
        await server.wait_closed()


# Stores: each real one behind an end that speaks mutual TLS


@pytest.mark.parametrize("service", [auth_url, profile_url])
async def test_postgresql(service: Any, postgres: Any, ours: Certificates, strangers: Certificates) -> None:
    with tls_before(f"{postgres.host}:{postgres.port}", ours, postgres=True) as port:
        server = {"postgres_host": "127.0.0.1", "postgres_port": port, "postgres_user": postgres.user}
        server |= {"postgres_password": postgres.password, "postgres_db": postgres.create_database("tls_db")}

        async def ask(tls: Tls) -> None:
            files = {"postgres_tls_ca": tls.ca, "postgres_tls_cert": tls.cert, "postgres_tls_key": tls.key}
            database = Database(service(Settings(**server, **files)), "profile")
            try:
                await database.check()
                async with database.transaction() as connection:
                    assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1
            finally:
                await database.close()

        await ask(ours.tls)
        for bad in wrong(ours, strangers):
            with pytest.raises(DatabaseAway):
                await ask(bad)


async def test_redis(valkey: str, ours: Certificates, strangers: Certificates) -> None:
    with tls_before(valkey, ours) as port:
        sink = RedisSinkPart("127.0.0.1", port, Places(lambda name: Place(name, None), ("n",)), ours.tls)
        sink.write_batch([[Record("any", b"tls-test", b'{"n":1}', 0)]])
        sink.snapshot()
        sink.close()
        feed = RedisFeed("127.0.0.1", port, lambda _: None, lambda _: None, ours.tls)
        assert await feed._redis.get("tls-test") == b'{"n":1}'
        listening = feed._connection_class(**feed._server)
        await listening.connect()
        await listening.disconnect()
        await feed.close()
        for bad in wrong(ours, strangers):
            feed = RedisFeed("127.0.0.1", port, lambda _: None, lambda _: None, bad)
            with pytest.raises(RedisAway):
                await feed._redis.get("tls-test")
            await feed.close()


async def test_clickhouse(clickhouse: str, ours: Certificates, strangers: Certificates) -> None:
    with tls_before(clickhouse, ours) as port:
        client = Server("127.0.0.1", port, "default", "postgres", ours.tls).connect()
        assert client.command("SELECT 1") == 1
        client.close()
        where = api.dashboard.clickhouse.Server("127.0.0.1", port, "default", "postgres", ours.tls)
        dashboard = api.dashboard.clickhouse.ClickHouse(where)
        assert await dashboard.query("tls", "SELECT 1", {}) == [(1,)]
        await dashboard.close()
        for bad in wrong(ours, strangers):
            with pytest.raises(ClickHouseError):
                Server("127.0.0.1", port, "default", "postgres", bad).connect()


@pytest.fixture
def plain_afterwards() -> Iterator[None]:
    yield
    use_kafka_tls(None)


@pytest.mark.usefixtures("plain_afterwards")
def test_kafka(kafka: str, ours: Certificates, strangers: Certificates) -> None:
    """The broker's answer over TLS. It then names its own address, which is a plain one here."""
    with tls_before(kafka, ours) as port:

        def answers(tls: Tls | None, tries: int) -> bool:
            use_kafka_tls(tls)
            for _ in range(tries):
                admin = AdminClient({**kafka_security(), "bootstrap.servers": f"127.0.0.1:{port}", "log_level": 0})
                try:
                    return len(admin.list_topics(timeout=1).brokers) == 1
                except KafkaException:
                    continue  # it may have gone over to the address that the broker names, before it answered
            return False

        assert answers(ours.tls, 20)
        for bad in (None, *wrong(ours, strangers)):
            assert not answers(bad, 2)


async def test_a_store_with_a_certificate_of_another_host(
    postgres: Any, valkey: str, clickhouse: str, tmp_path: Path
) -> None:
    elsewhere = make_certificates(tmp_path / "elsewhere", "elsewhere.example")
    with tls_before(f"{postgres.host}:{postgres.port}", elsewhere, postgres=True) as port:
        files = {f"postgres_tls_{name}": getattr(elsewhere, name) for name in ("ca", "cert", "key")}
        database = Database(profile_url(Settings(postgres_host="127.0.0.1", postgres_port=port, **files)), "profile")
        with pytest.raises(DatabaseAway, match="certificate"):
            await database.check()
        await database.close()
    with tls_before(valkey, elsewhere) as port:
        feed = RedisFeed("127.0.0.1", port, lambda _: None, lambda _: None, elsewhere.tls)
        with pytest.raises(RedisAway, match="certificate"):
            await feed._redis.get("tls-test")
        await feed.close()
    with tls_before(clickhouse, elsewhere) as port, pytest.raises(ClickHouseError, match="certificate"):
        Server("127.0.0.1", port, "default", "postgres", elsewhere.tls).connect()
