"""Real stores for the tests: each starts when a session's first test asks for it, and ends with it."""

import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from infra.local.clickhouse import clickhouse as clickhouse_part
from infra.local.kafka import kafka as kafka_part
from infra.local.part import LOOPBACK, free_port, running, take_ports_of
from infra.local.postgres import SUPERUSER, Database
from infra.local.postgres import postgres as postgres_part
from infra.local.valkey import valkey as valkey_part

# A shell's background job ignores SIGINT, and would hand that down to the processes that tests end by it.
signal.signal(signal.SIGINT, signal.default_int_handler)
# Between the choice of a port and the start of its server, another worker would find it free.
take_ports_of(
    int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")),
    int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")),
)


@pytest.fixture(scope="session")
def store_data() -> Iterator[Path]:
    """A directory for the session's stores, with their logs.

    Not one of pytest's: those are closed to other users, and root runs PostgreSQL as another user.
    """
    directory = Path(tempfile.mkdtemp(prefix="tracker-stores-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(store_data: Path) -> Iterator[str]:
    """`bootstrap.servers` of a broker; take topic names of your own."""
    port = free_port()
    with running(kafka_part(store_data / "kafka", port), store_data / "kafka.log"):
        yield f"{LOOPBACK}:{port}"


@pytest.fixture(scope="session")
def valkey(store_data: Path) -> Iterator[str]:
    """host:port of a Redis-protocol server; take keys of your own."""
    port = free_port()
    with running(valkey_part(store_data / "valkey", port), store_data / "valkey.log"):
        yield f"{LOOPBACK}:{port}"


@dataclass(frozen=True)
class PostgresServer:
    """A PostgreSQL server and its superuser."""

    host: str
    port: int
    user: str
    password: str

    def create_database(self, name: str) -> str:
        """A new empty database, its name made unique from `name`; gives that name."""
        unique = f"{name}_{secrets.token_hex(4)}"
        with psycopg.connect(self.conninfo("postgres"), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{unique}"')
        return unique

    def conninfo(self, database: str) -> str:
        """A libpq connection string."""
        return psycopg.conninfo.make_conninfo(
            host=self.host, port=self.port, user=self.user, password=self.password, dbname=database
        )


@pytest.fixture(scope="session")
def postgres(store_data: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL server; `create_database(name)` gives each module its own database."""
    database = Database(store_data / "postgres", free_port(), "tests", "tests")
    with running(postgres_part("postgres", database), store_data / "postgres.log"):
        yield PostgresServer(LOOPBACK, database.port, SUPERUSER, database.superuser_password)


@pytest.fixture(scope="session")
def clickhouse(store_data: Path) -> Iterator[str]:
    """host:port of a server with ClickHouse's HTTP interface; user default, password postgres."""
    port = free_port()
    with running(clickhouse_part(store_data / "clickhouse", port), store_data / "clickhouse.log"):
        yield f"{LOOPBACK}:{port}"


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The directory of recorded Binance frames beside the checkout; skips where there is none."""
    directory = Path(__file__).parents[2] / "shared" / "data" / "binance"
    if not directory.is_dir():
        pytest.skip(f"no recordings at {directory}")
    return directory
