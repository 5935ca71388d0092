"""The dashboard over a real table."""

import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager

import httpx
import pytest
from dashboard_parts import Table, connect

from api.dashboard.app import create_app
from infra.clickhouse.migrate import migrate
from infra.settings import Settings

Dashboard = Callable[[Settings], AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def table(clickhouse: str) -> Iterator[Table]:
    """An empty market_tickers, made by the migrations."""
    client = connect(clickhouse)
    table = Table(client, clickhouse, f"dashboard_{secrets.token_hex(4)}")
    migrate(client, table.database, table.name)
    yield table
    client.command(f"DROP DATABASE {table.database}")
    client.close()


@contextlib.asynccontextmanager
async def _dashboard(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(settings)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://dashboard", timeout=60) as client,
    ):
        yield client


@pytest.fixture
def dashboard() -> Dashboard:
    """`async with dashboard(settings) as client`."""
    return _dashboard


@pytest.fixture
async def client(table: Table) -> AsyncIterator[httpx.AsyncClient]:
    """The dashboard of `table`."""
    async with _dashboard(table.settings()) as client:
        yield client
