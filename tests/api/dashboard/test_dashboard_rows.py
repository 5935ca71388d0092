"""The table's rows: which, in what order, how they are written, and page by page."""

from decimal import Decimal

import httpx
import pytest
from dashboard_parts import START_MS, Table, identities, link, table_rows, ticker


async def test_all_columns_newest_first(table: Table, client: httpx.AsyncClient) -> None:
    table.insert([ticker("BTCUSDT", START_MS, "64000.10"), ticker("ETHUSDT", START_MS + 1000, "90")])
    page = await client.get("/")
    assert table_rows(page) == [
        ["ETHUSDT", "2026-09-21 14:13:21.000", "90", "-10", "-10", "100", "100", "90", "2026-09-21 14:13:21.002",
         "24hrMiniTicker", f"ETHUSDT-{START_MS + 1000}"],
        ["BTCUSDT", "2026-09-21 14:13:20.000", "64000.1", "63900.1", "63900.1", "100", "64000.1", "100",
         "2026-09-21 14:13:20.002", "24hrMiniTicker", f"BTCUSDT-{START_MS}"],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        ("0.00000001", "0.00000001"),
        ("-0.00000001", "-0.00000001"),
        ("9999999999.99999999", "9999999999.99999999"),
        ("10", "10"),
        ("1000000", "1000000"),
        ("0", "0"),
        ("0.1", "0.1"),
    ],
)
async def test_decimals_are_exact_and_plain(table: Table, client: httpx.AsyncClient, stored: str, shown: str) -> None:
    table.insert([ticker("BTCUSDT", START_MS, close_price=Decimal(stored), change_percent=Decimal(stored))])
    ((_, _, close, _, percent, *_),) = table_rows(await client.get("/"))
    assert (close, percent) == (shown, shown)


async def test_the_filter_takes_any_case(table: Table, client: httpx.AsyncClient) -> None:
    table.insert([ticker(symbol, START_MS) for symbol in ("BTCUSDT", "ETHUSDT", "币安人生USDT")])
    for written in ("ETHUSDT", "ethusdt", " EthUsdt "):
        page = await client.get("/", params={"symbol": written, "limit": 100})
        assert identities(page) == [f"ETHUSDT-{START_MS}"]
        assert 'value="ETHUSDT"' in page.text
    assert identities(await client.get("/", params={"symbol": "币安人生usdt"})) == [f"币安人生USDT-{START_MS}"]


async def test_a_symbol_without_rows_is_no_error(table: Table, client: httpx.AsyncClient) -> None:
    table.insert([ticker(symbol, START_MS) for symbol in ("BTCUSDT", "ETHUSDT", "ETHBTC")])
    page = await client.get("/", params={"symbol": "ethusd"})
    assert page.status_code == 200
    assert "No rows for ETHUSD" in page.text
    assert page.text.index('href="/?symbol=ETHUSDT"') < page.text.index('href="/?symbol=BTCUSDT"')


async def test_an_empty_table(client: httpx.AsyncClient) -> None:
    page = await client.get("/")
    assert (page.status_code, table_rows(page)) == (200, [])
    assert "No rows yet" in page.text
    assert "no rows at all yet" in (await client.get("/?symbol=btcusdt")).text


@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_limits(table: Table, client: httpx.AsyncClient, limit: int) -> None:
    table.insert([ticker("BTCUSDT", START_MS + 1000 * number) for number in range(5)])
    page = await client.get("/", params={"limit": limit})
    assert len(table_rows(page)) == min(limit, 5)
    assert (link(page, "next") is None) == (limit == 1000)


async def test_pages_are_stable_while_rows_arrive(table: Table, client: httpx.AsyncClient) -> None:
    # Rows of the same time on each page's border, and silences longer than any span that is looked at first.
    times = [
        START_MS + 1000 * (number // 4) + 90_000 * (number // 9) + 4_000_000 * (number // 20) for number in range(40)
    ]
    rows = [ticker(f"S{number % 4}USDT", at) for number, at in enumerate(times)]
    table.insert(rows)
    expected = [row.message_id for row in sorted(rows, key=lambda row: (-row.event_ms, row.symbol))]

    page = await client.get("/", params={"limit": 7})
    seen, addresses = identities(page), []
    for number in range(20):
        table.insert([ticker("NEWUSDT", START_MS + 10_000_000 + number)])
        address = link(page, "next")
        if address is None:
            break
        addresses.append(address)
        page = await client.get(address)
        seen += identities(page)
    assert seen == expected
    assert "These are the oldest rows" in page.text

    for address in reversed(addresses[:-1]):  # back the way we came
        page = await client.get(link(page, "prev") or "")
        assert identities(page) == identities(await client.get(address))
    page = await client.get(link(page, "prev") or "")
    assert identities(page) == expected[:7]
    page = await client.get(link(page, "prev") or "")  # fewer than a page: the newest one
    assert (page.status_code, page.headers["location"]) == (303, "/?limit=7")


async def test_pages_of_a_symbol(table: Table, client: httpx.AsyncClient) -> None:
    table.insert([ticker(symbol, START_MS + 1000 * number) for number in range(6) for symbol in ("AUSDT", "BUSDT")])
    page = await client.get("/?symbol=busdt&limit=4")
    assert identities(page) == [f"BUSDT-{START_MS + 1000 * number}" for number in (5, 4, 3, 2)]
    page = await client.get(link(page, "next") or "")
    assert identities(page) == [f"BUSDT-{START_MS + 1000 * number}" for number in (1, 0)]
    assert link(page, "first") == "/?symbol=BUSDT&limit=4"


async def test_before_the_first_row(table: Table, client: httpx.AsyncClient) -> None:
    table.insert([ticker("AUSDT", START_MS + number) for number in range(2)])
    older = link(await client.get("/?limit=1"), "next")
    table.client.command(f"ALTER TABLE {table.database}.{table.name} DELETE WHERE toUnixTimestamp64Milli(event_time) = {START_MS}"
                         " SETTINGS mutations_sync = 1")  # fmt: skip
    page = await client.get(older or "")
    assert page.status_code == 200
    assert "No older rows" in page.text


async def test_rows_in_a_table_of_another_name(clickhouse: str, table: Table, dashboard) -> None:  # type: ignore[no-untyped-def]
    from infra.clickhouse.migrate import migrate

    other = Table(table.client, clickhouse, table.database, "tickers_too")
    migrate(table.client, table.database, other.name)
    other.insert([ticker("BTCUSDT", START_MS)])
    async with dashboard(other.settings()) as client:
        page = await client.get("/")
        assert len(table_rows(page)) == 1
        assert f"{table.database}.tickers_too" in page.text
