"""What the tests of the dashboard hold on to."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from html import unescape

import clickhouse_connect
import httpx
from clickhouse_connect.driver.client import Client

from api.dashboard.schemas import TickerRow
from infra.settings import Settings, split_address

COLUMNS = [name.removesuffix("_ms") + ("_time" if name.endswith("_ms") else "") for name in TickerRow._fields]
START_MS = 1_790_000_000_000


def ticker(symbol: str, event_ms: int, close: str = "100", **changes: object) -> TickerRow:
    """A row whose day opened at 100."""
    price = Decimal(close)
    row = TickerRow(
        f"{symbol}-{event_ms}", "24hrMiniTicker", event_ms, event_ms + 2, symbol,
        price, Decimal(100), max(price, Decimal(100)), min(price, Decimal(100)), price - 100, price - 100,
    )  # fmt: skip
    return row._replace(**changes)


@dataclass(frozen=True)
class Table:
    """A market_tickers table of the test's own."""

    client: Client
    address: str
    database: str
    name: str = "market_tickers"

    def insert(self, rows: Iterable[TickerRow]) -> None:
        values = [
            [_utc(value) if name.endswith("_ms") else value for name, value in row._asdict().items()] for row in rows
        ]
        self.client.insert(f"{self.database}.{self.name}", values, column_names=COLUMNS)

    def count(self) -> int:
        ((count,),) = self.client.query(f"SELECT count() FROM {self.database}.{self.name}").result_rows
        return int(count)

    def settings(self, **changes: object) -> Settings:
        values = {"clickhouse_addr": self.address, "clickhouse_database": self.database, "clickhouse_table": self.name}
        return Settings(**(values | changes))

    def env(self) -> dict[str, str]:
        return {name.upper(): str(getattr(self.settings(), name)) for name in
                ("clickhouse_addr", "clickhouse_database", "clickhouse_table")}  # fmt: skip


def connect(address: str) -> Client:
    host, port = split_address(address, 8123)
    return clickhouse_connect.get_client(
        host=host, port=port, username="default", password="postgres", autogenerate_session_id=False
    )


def _utc(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1000, UTC).replace(microsecond=ms % 1000 * 1000)


def table_rows(page: httpx.Response) -> list[list[str]]:
    """The text of the table's cells, row by row."""
    assert page.status_code == 200, page.text
    body = re.search(r'<tbody id="rows"[^>]*>(.*?)</tbody>', page.text, re.DOTALL)
    if not body:
        return []
    rows = re.findall(r"<tr\b.*?</tr>", body[1], re.DOTALL)
    return [[_text(cell) for cell in re.findall(r"<t[hd]\b[^>]*>(.*?)</t[hd]>", row, re.DOTALL)] for row in rows]


def identities(page: httpx.Response) -> list[str]:
    """The message ids of the rows, which come last."""
    return [row[-1] for row in table_rows(page)]


def link(page: httpx.Response, rel: str) -> str | None:
    """Where the pager's link leads."""
    found = re.search(rf'rel="{rel}" href="([^"]+)"', page.text)
    return unescape(found[1]) if found else None


def figures(page: httpx.Response) -> dict[str, str]:
    """The chart's numbers by their names."""
    listed = re.search(r'<dl class="figures">(.*?)</dl>', page.text, re.DOTALL)
    assert listed, page.text
    return dict(_pairs(listed[1]))


def _pairs(html: str) -> Iterator[tuple[str, str]]:
    for name, value in re.findall(r"<dt>(.*?)</dt><dd[^>]*>(.*?)</dd>", html, re.DOTALL):
        yield _text(name), _text(value)


def _text(html: str) -> str:
    return unescape(re.sub(r"<[^>]+>", "", html)).strip()
