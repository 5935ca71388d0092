"""The dashboard's process: `python -m api.dashboard.app`."""

import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from api.dashboard.clickhouse import ClickHouse, Server
from api.dashboard.endpoints import dashboard_router
from api.dashboard.errors import ClickHouseAway, DashboardError, TableUnusable
from api.dashboard.pages import HERE, CarefulHeaders, Pages, errors_as_pages
from api.dashboard.repository import TickerRepository
from api.dashboard.service import DashboardService
from api.http import health_router, install_problems, serve
from infra.logs import setup_logging
from infra.settings import Settings, split_address

DEFAULT_PORT = 8083

log = logging.getLogger(__name__)


def create_app(settings: Settings) -> FastAPI:
    """The application; it connects to ClickHouse when first asked for something."""
    clickhouse = ClickHouse(_server(settings))
    database, table = settings.clickhouse_database, settings.clickhouse_table
    repository = TickerRepository(clickhouse, database, table)
    pages = Pages(f"{database}.{table}")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await clickhouse.close()

    async def unavailable() -> str | None:
        try:
            await repository.ping()
        except DashboardError as error:
            return str(error)
        return None

    # No OpenAPI pages: they would load scripts of another host, and there is no interface for programs here.
    app = FastAPI(title="ClickHouse dashboard", lifespan=lifespan, openapi_url=None)
    install_problems(app, {ClickHouseAway: 503, TableUnusable: 503})
    errors_as_pages(app, pages)
    app.add_middleware(CarefulHeaders)
    app.include_router(health_router(unavailable))
    app.include_router(dashboard_router(DashboardService(repository), pages))
    app.mount("/static", StaticFiles(directory=HERE / "static"))
    return app


def _server(settings: Settings) -> Server:
    host, port = settings.clickhouse_http
    if split_address(settings.clickhouse_addr, port)[1] != port:
        log.warning("CLICKHOUSE_ADDR=%s is the native port: using HTTP at port %d", settings.clickhouse_addr, port)
    password = settings.clickhouse_password.get_secret_value()
    return Server(host, port, settings.clickhouse_user, password, settings.tls("clickhouse"))


def main() -> None:
    """Entry point; a configuration that can't be used is one line and exit 1."""
    try:
        settings = Settings()
    except ValueError as error:
        sys.exit(f"dashboard: {error}")
    setup_logging(settings.log_level)
    logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)  # what matters comes as an exception
    serve(create_app(settings), *settings.listen(DEFAULT_PORT))


if __name__ == "__main__":
    main()
