"""The aggregator's process: `python -m api.aggregator.app`."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from api.aggregator.endpoints import aggregator_router
from api.aggregator.errors import NotAvailable, UnknownSymbol
from api.aggregator.repository import SubscriptionLog
from api.aggregator.service import AggregatorService, Ingest
from api.http import API_ONLY, SecurityHeaders, health_router, install_problems, serve
from api.symbols import SymbolDirectory, rest_url
from flows.channels import SUBSCRIPTIONS, Topic
from infra.logs import setup_logging
from infra.settings import Settings, split_address
from infra.tls import use_kafka_tls

DEFAULT_PORT = 8088
_INGEST_PORT = 8101


def create_app(settings: Settings, topic: Topic = SUBSCRIPTIONS) -> FastAPI:
    """The application; it connects to Kafka when it starts."""
    subscriptions = SubscriptionLog(settings.bootstrap_servers, topic)
    symbols = SymbolDirectory(rest_url(settings))
    ingest = Ingest(*split_address(settings.ingest_addr, _INGEST_PORT))
    service = AggregatorService(subscriptions, symbols, ingest, settings.symbols)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        subscriptions.start()
        leases = asyncio.create_task(service.take_back_leases())
        yield
        leases.cancel()
        await subscriptions.stop()
        await symbols.close()
        await ingest.close()

    app = FastAPI(title="Aggregator control", lifespan=lifespan)
    install_problems(app, {UnknownSymbol: 422, NotAvailable: 503})
    app.add_middleware(SecurityHeaders, more={"/coin": API_ONLY, "/subscriptions": API_ONLY})
    app.include_router(health_router(subscriptions.unavailable))
    app.include_router(aggregator_router(service))
    return app


def main() -> None:
    """Entry point; a configuration that can't be used is one line and exit 1."""
    try:
        settings = Settings()
    except ValueError as error:
        sys.exit(f"aggregator: {error}")
    setup_logging(settings.log_level)
    use_kafka_tls(settings.tls("kafka"))
    serve(create_app(settings), *settings.listen(DEFAULT_PORT))


if __name__ == "__main__":
    main()
