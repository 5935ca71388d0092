"""The migrations, on the real engine."""

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client

from infra.clickhouse.migrate import migrate, migrations
from infra.settings import split_address

COLUMNS = [
    ("message_id", "String"),
    ("event_type", "String"),
    ("event_time", "DateTime64(3)"),
    ("receive_time", "DateTime64(3)"),
    ("symbol", "String"),
    *[
        (name, "Decimal(18, 8)")
        for name in ("close_price", "open_price", "high_price", "low_price", "change_price", "change_percent")
    ],
]


def connect(address: str) -> Client:
    host, port = split_address(address, 8123)
    return clickhouse_connect.get_client(
        host=host, port=port, username="default", password="postgres", autogenerate_session_id=False
    )


@pytest.fixture
def client(clickhouse: str) -> Iterator[Client]:
    connected = connect(clickhouse)
    yield connected
    connected.close()


@pytest.fixture
def database() -> str:
    return f"migrate_{secrets.token_hex(4)}"


def recorded(client: Client, database: str) -> list[tuple[int, str, str]]:
    return client.query(f"SELECT version, name, target FROM {database}.schema_migrations ORDER BY version").result_rows


def test_numbers_are_unique_and_rise() -> None:
    numbers = [migration.version for migration in migrations()]
    assert numbers == list(range(1, len(numbers) + 1))


def test_the_table_is_what_the_contract_says(client: Client, database: str) -> None:
    assert migrate(client, database, "market_tickers")[0] == "0001_market_tickers"

    described = client.query(f"DESCRIBE TABLE {database}.market_tickers").result_rows
    assert [(row[0], row[1]) for row in described] == COLUMNS
    ((engine, order, partition),) = client.query(
        "SELECT engine, sorting_key, partition_key FROM system.tables WHERE database = {d:String}"
        " AND name = 'market_tickers'",
        parameters={"d": database},
    ).result_rows
    assert (engine, order, partition) == ("MergeTree", "symbol, event_time", "toYYYYMM(event_time)")


def test_a_second_run_applies_nothing(client: Client, database: str) -> None:
    applied = migrate(client, database, "market_tickers")
    assert migrate(client, database, "market_tickers") == []
    assert [(name, target) for _, name, target in recorded(client, database)] == [
        (name, "market_tickers") for name in applied
    ]


def test_another_table_gets_its_own(client: Client, database: str) -> None:
    migrate(client, database, "market_tickers")
    assert migrate(client, database, "tickers_too") == [migration.name for migration in migrations()]
    assert client.query(f"SELECT count() FROM {database}.tickers_too").result_rows == [(0,)]


def test_two_at_once(clickhouse: str, client: Client, database: str) -> None:
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(migrate, connect(clickhouse), database, "market_tickers") for _ in range(4)]:
            done.result()
    assert len(recorded(client, database)) == len(migrations())


def test_a_table_that_was_there_gets_deduplication(client: Client, database: str) -> None:
    client.command(f"CREATE DATABASE {database}")
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS)
    client.command(f"CREATE TABLE {database}.old ({columns}) ENGINE = MergeTree ORDER BY (symbol, event_time)")
    migrate(client, database, "old")
    assert "non_replicated_deduplication_window = 1000" in client.command(f"SHOW CREATE TABLE {database}.old")


@pytest.mark.parametrize("name", ["a b", "x;DROP TABLE y", "", "`q`"])
def test_names_that_are_no_identifiers(client: Client, database: str, name: str) -> None:
    with pytest.raises(ValueError, match="not a plain ClickHouse name"):
        migrate(client, database, name)
