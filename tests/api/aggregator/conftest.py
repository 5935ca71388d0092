"""The aggregator on a real broker, with small real servers in the exchange's and ingest's places."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import httpx
import pytest
from aggregator_parts import SYMBOLS, Neighbours, is_ready
from aiohttp import web

from api.aggregator.app import create_app
from flows.channels import Topic
from infra.settings import Settings

Running = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def topic() -> Topic:
    """A compacted topic of the test's own."""
    return Topic(f"subscriptions-{uuid.uuid4()}", 1, {"cleanup.policy": "compact"})


@pytest.fixture
async def neighbours() -> AsyncIterator[Neighbours]:
    neighbours, app = Neighbours(), web.Application()

    async def exchange_info(request: web.Request) -> web.Response:
        rows = [{"symbol": one, "status": "TRADING", "baseAsset": one[:-4], "quoteAsset": "USDT"} for one in SYMBOLS]
        return web.json_response({"symbols": rows}, status=200 if neighbours.exchange_up else 500)

    async def streams(request: web.Request) -> web.Response:
        body = {"connected": True, "aggtrade": neighbours.streams, "miniticker": True, "last_event_ms": None}
        return web.json_response(body, status=200 if neighbours.ingest_up else 503)

    app.add_routes([web.get("/api/v3/exchangeInfo", exchange_info), web.get("/streams", streams)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    neighbours.address = f"127.0.0.1:{runner.addresses[0][1]}"
    yield neighbours
    await runner.cleanup()


@pytest.fixture
def aggregator(kafka: str, topic: Topic, neighbours: Neighbours) -> Running:
    """`async with aggregator() as client`: an instance on the test's topic; `always_on` symbols, another broker."""

    @contextlib.asynccontextmanager
    async def running(
        always_on: tuple[str, ...] = (), brokers: str = kafka, wait: bool = True
    ) -> AsyncIterator[httpx.AsyncClient]:
        settings = Settings(
            brokers=brokers,
            exchange_rest_url=f"http://{neighbours.address}",
            ingest_addr=neighbours.address,
            symbols=always_on,
        )
        app = create_app(settings, topic)
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://aggregator", timeout=60) as client,
        ):
            if wait:
                await is_ready(client)
            yield client

    return running
