"""`second_stats` and the candles: the highest revision of each second, merged or not, against plain Python."""

import random
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from flows.clickhouse_etl import SECOND_STATS
from flows.connectors.clickhouse_table import ClickHouseTable, Server
from flows.domain.second_stat import SecondStat
from infra.clickhouse.migrate import migrate
from infra.settings import split_address

START_MS = 1_790_000_000_000 // 3_600_000 * 3_600_000
FIELDS = SecondStat._fields
HUGE = 1 << 80  # the core's largest amount


@pytest.fixture
def server(clickhouse: str) -> Server:
    return Server(*split_address(clickhouse, 8123), "default", "postgres")


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    connected = server.connect()
    yield connected
    connected.close()


@pytest.fixture
def table(server: Server, client: Client) -> ClickHouseTable:
    database = f"views_{secrets.token_hex(4)}"
    migrate(client, database, "market_tickers")
    lane = SECOND_STATS
    return ClickHouseTable(server, database, lane.table, lane.columns, lane.key, replacing=True)


def store(table: ClickHouseTable, stats: list[SecondStat]) -> None:
    data = [[getattr(stat, name) for stat in stats] for name in FIELDS]
    table.insert(table.insert_of(data))


def view(client: Client, table: ClickHouseTable, text: str) -> list[Any]:
    return list(client.query(text.replace("DB.", table.name.partition(".")[0] + ".")).result_rows)


def stat(symbol: str, second: int, revision: int, dice: random.Random) -> SecondStat:
    prices = [dice.randrange(1, 10**14) for _ in range(4)]
    sums = [
        dice.randrange(10**15),
        dice.randrange(10**28),
        dice.randrange(1, 99),
        dice.randrange(10**15),
        dice.randrange(10**28),
    ]
    ids = (second * 10, second * 10 + dice.randrange(10))
    return SecondStat(symbol, START_MS + second * 1000, *prices, *sums, *ids, revision)  # type: ignore[arg-type]


def test_candles_are_of_the_highest_revisions(client: Client, table: ClickHouseTable) -> None:
    dice = random.Random(7)
    everything = [
        stat(symbol, second, revision, dice)
        for symbol in ("AUSDT", "币USDT")
        for second in dice.sample(range(2 * 3600), 1500)
        for revision in range(dice.choice([1, 1, 1, 2, 3]))
    ]
    dice.shuffle(everything)  # a later insert may bring a lower revision: records that are read again
    for at in range(0, len(everything), 400):
        store(table, everything[at : at + 400])
    store(table, everything[:900:2])

    final: dict[tuple[str, int], SecondStat] = {}
    for one in everything:
        known = final.get((one.symbol, one.timestamp))
        if known is None or known.revision < one.revision:
            final[one.symbol, one.timestamp] = one
    assert any(one.revision == 2 for one in final.values())

    columns = ", ".join(f"toUnixTimestamp64Milli({name})" if name == "timestamp" else name for name in FIELDS)
    for suffix in ("", " FINAL"):
        rows = view(client, table, f"SELECT {columns} FROM DB.second_stats{suffix}")
        assert {SecondStat(*map(units, FIELDS, row)) for row in rows} == set(final.values())
        assert len(rows) == len(final)
    for name, width in (("candles_1m", 60_000), ("candles_1h", 3_600_000)):
        rows = view(client, table, f"SELECT * EXCEPT timestamp, toUnixTimestamp(timestamp) FROM DB.{name}")
        assert {tuple(row) for row in rows} == candles(list(final.values()), width)
        assert len({(row[0], row[-1]) for row in rows}) == len(rows)


def units(name: str, value: Any) -> Any:
    return int(value.scaleb(16 if "quote" in name else 8)) if isinstance(value, Decimal) else value


def candles(final: list[SecondStat], width: int) -> set[tuple[Any, ...]]:
    groups: dict[tuple[str, int], list[SecondStat]] = {}
    for one in sorted(final, key=lambda one: one.timestamp):
        groups.setdefault((one.symbol, one.timestamp // width * width), []).append(one)

    def total(name: str, of: list[SecondStat]) -> Any:
        amount = sum(getattr(one, name) for one in of)
        return amount if name == "trade_count" else decimal(amount, 16 if "quote" in name else 8)

    return {
        (
            symbol,
            *(decimal(price) for price in (of[0].open, max(o.high for o in of), min(o.low for o in of), of[-1].close)),
            *(total(name, of) for name in ("volume", "quote_volume", "trade_count", "taker_buy_volume", "taker_buy_quote_volume")),
            of[0].first_trade_id,
            of[-1].last_trade_id,
            len(of),
            start // 1000,
        )
        for (symbol, start), of in groups.items()
    }  # fmt: skip


def decimal(amount: int, places: int = 8) -> Decimal:
    return Decimal(f"{amount}e-{places}")


def test_the_largest_amounts_do_not_overflow(client: Client, table: ClickHouseTable) -> None:
    one = [
        SecondStat("A", START_MS + i * 1000, *[HUGE] * 5, HUGE * HUGE, 1 << 60, HUGE, HUGE * HUGE, 1, (1 << 63) - 1, 0)
        for i in range(12)
    ]
    store(table, one)
    ((volume, quote, high),) = view(client, table, "SELECT volume, quote_volume, high FROM DB.candles_1h")
    assert (volume, quote, high) == (decimal(12 * HUGE), decimal(12 * HUGE * HUGE, 16), decimal(HUGE))


@pytest.mark.parametrize("name", ["second_stats", "candles_1m", "candles_1h"])
def test_a_range_of_a_symbol_is_found_by_the_primary_key(client: Client, table: ClickHouseTable, name: str) -> None:
    raw = f"INSERT INTO {table.name} (symbol, timestamp, revision) SELECT 'S' || number % 50, " \
        f"fromUnixTimestamp64Milli({START_MS} + intDiv(number, 50) * 1000, 'UTC'), 0 FROM numbers(1000000)"  # fmt: skip
    client.command(raw)
    start = f"{datetime.fromtimestamp(START_MS / 1000 + 3600, UTC):%F %T}"
    plan = client.command(
        f"EXPLAIN indexes = 1 SELECT * FROM {table.name.partition('.')[0]}.{name} "
        f"WHERE symbol = 'S7' AND timestamp >= '{start}' AND timestamp < '{start}' + INTERVAL 1 HOUR"
    )
    read, whole = str(plan).rpartition("Granules: ")[2].split()[0].split("/")
    assert int(read) <= 3
    assert int(whole) >= 50
