"""The queries of docs/sql.md on the real engine, with rows whose answers can be counted by hand."""

import datetime as dt
import secrets
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from doc_file import DOCS, blocks

from infra.clickhouse.migrate import migrate
from infra.settings import split_address

BLOCKS = blocks(DOCS / "sql.md")
NOW = dt.datetime.now(dt.UTC).replace(microsecond=0)
HOUR = NOW.replace(minute=0, second=0)
COLUMNS = (
    "message_id", "event_type", "event_time", "receive_time", "symbol",
    "close_price", "open_price", "high_price", "low_price", "change_price", "change_percent",
)  # fmt: skip


def row(symbol: str, time: dt.datetime, close: str) -> tuple[Any, ...]:
    open_price = Decimal(100)
    change = Decimal(close) - open_price
    return (
        f"{symbol}-{time.timestamp() * 1000:.0f}", "24hrMiniTicker", time, time, symbol,
        Decimal(close), open_price, Decimal(1000), Decimal(1), change, change,
    )  # fmt: skip


def ago(**lengths: float) -> dt.datetime:
    return NOW - dt.timedelta(**lengths)


# Two of the last minutes, one of the last hour, and old ones; three thirds that are no decimal.
BTC = [
    (ago(seconds=5), "101.00000001"), (ago(seconds=65), "100.5"), (ago(minutes=20), "100.50000001"),
    (HOUR - dt.timedelta(hours=3) + dt.timedelta(minutes=10), "90"),
    (HOUR - dt.timedelta(hours=3) + dt.timedelta(minutes=50), "91.5"),
    (HOUR - dt.timedelta(hours=30), "80"),
]  # fmt: skip
ETH = [(ago(seconds=10 + n), str(3000 + n)) for n in range(120)]


@pytest.fixture(scope="module")
def client(clickhouse: str) -> Iterator[Client]:
    host, port = split_address(clickhouse, 8123)
    with clickhouse_connect.get_client(host=host, port=port, username="default", password="postgres") as connected:
        yield connected


@pytest.fixture(scope="module")
def database(client: Client) -> str:
    """A database made by the migrations, with the known rows."""
    name = f"docs_{secrets.token_hex(4)}"
    migrate(client, name, "market_tickers")
    rows = [row("BTCUSDT", *known) for known in BTC] + [row("ETHUSDT", *known) for known in ETH]
    client.insert(f"{name}.market_tickers", rows, column_names=COLUMNS)
    return name


@pytest.fixture
def ask(client: Client, database: str) -> Any:
    """Runs the query under a heading of docs/sql.md."""

    def ask(heading: str, **parameters: str) -> list[Any]:
        (query,) = [one.text for one in BLOCKS if one.language == "sql" and one.heading.startswith(heading)]
        return list(client.query(query.replace("crypto.", f"{database}."), parameters=parameters).result_rows)

    return ask


def cut(prices: list[str]) -> Decimal:
    """Their average, cut after 8 places."""
    return (sum(map(Decimal, prices)) / len(prices)).quantize(Decimal("1e-8"), rounding="ROUND_DOWN")


def utc(time: dt.datetime) -> dt.datetime:
    return time.replace(tzinfo=None)


def test_every_query_is_tested() -> None:
    assert len([one for one in BLOCKS if one.language == "sql"]) == 4


def test_latest_100_rows(ask: Any) -> None:
    known = [("BTCUSDT", *one) for one in BTC] + [("ETHUSDT", *one) for one in ETH]
    newest = sorted(sorted(known), key=lambda one: one[1], reverse=True)[:100]
    answer = ask("Latest 100 rows")
    assert [(one[0], one[1], one[2]) for one in answer] == [(s, utc(t), Decimal(p)) for s, t, p in newest]
    assert answer[0] == (
        "BTCUSDT", utc(ago(seconds=5)), Decimal("101.00000001"), 100, 1000, 1, Decimal("1.00000001"), Decimal("1.00000001"),
    )  # fmt: skip


def test_average_lowest_and_highest_of_the_last_hour(ask: Any) -> None:
    btc = ["101.00000001", "100.5", "100.50000001"]
    assert ask("Average, lowest and highest") == [
        ("BTCUSDT", cut(btc), Decimal("100.5"), Decimal("101.00000001")),
        ("ETHUSDT", Decimal("3059.5"), 3000, 3119),
    ]
    assert cut(btc) == Decimal("100.66666667")


def test_statistics_of_a_symbol(ask: Any) -> None:
    prices = [price for _, price in BTC]
    ((tickers, first, last, first_price, last_price, lowest, highest, average, median, deviation),) = ask(
        "Statistics of a symbol", symbol="BTCUSDT"
    )
    assert (tickers, first, last) == (6, utc(BTC[-1][0]), utc(BTC[0][0]))
    assert (first_price, last_price, lowest, highest) == (80, Decimal(prices[0]), 80, Decimal(prices[0]))
    assert (average, median) == (cut(prices), Decimal("100.5"))
    mean = sum(map(Decimal, prices)) / 6
    variance = sum((Decimal(price) - mean) ** 2 for price in prices) / 6
    assert deviation == pytest.approx(float(variance.sqrt()), abs=1e-7)
    assert ask("Statistics of a symbol", symbol="' OR 1 = 1 --") == []


def test_hourly_average_prices_of_the_last_24_hours(ask: Any) -> None:
    hours: dict[tuple[str, dt.datetime], list[str]] = {}
    for symbol, known in (("BTCUSDT", BTC), ("ETHUSDT", ETH)):
        for time, price in known:
            if time >= ago(hours=24):
                hours.setdefault((symbol, time.replace(minute=0, second=0)), []).append(price)
    assert ask("Hourly average prices") == [
        (symbol, utc(hour), cut(prices), len(prices)) for (symbol, hour), prices in sorted(hours.items())
    ]
    assert ("BTCUSDT", HOUR - dt.timedelta(hours=3)) in hours


def test_the_ways_to_run_them(clickhouse: str, database: str) -> None:
    """The curl command and the Python lines, as they stand but for the port and the database."""
    port = clickhouse.rpartition(":")[2]
    shell, python = (
        next(one.text for one in BLOCKS if one.language == language)
        .replace("crypto.", f"{database}.")
        .replace("8123", port)
        for language in ("sh", "python")
    )
    by_curl = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True, timeout=30)
    assert by_curl.stdout == '"symbol","highest"\n"BTCUSDT",101.00000001\n'
    by_python = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, check=True, timeout=30)
    assert by_python.stdout == "[(Decimal('101.00000001'),)]\n"
