"""The socket service over a real channel and broker, with small real servers in its neighbours' places."""

import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import grpc
import pytest
import pytest_asyncio
from aiohttp import web
from socket_parts import SYMBOLS, Aggregator, Socket

from api.socket import leases as leases_module
from api.socket.leases import Leases
from api.socket.server import SocketServer
from api.symbols import SymbolDirectory
from flows.channels import RAW_CONFIG, Topic, create_topics
from protos import market_pb2_grpc

Serving = Callable[..., AbstractAsyncContextManager[Socket]]


# One loop for all: grpcio's asyncio client stays bound to the first one it saw a stream on.
@pytest_asyncio.fixture(loop_scope="session")
async def neighbours() -> AsyncIterator[tuple[str, Aggregator]]:
    """URL of an exchange and an aggregator in one."""
    aggregator, app = Aggregator(), web.Application()

    async def exchange_info(request: web.Request) -> web.Response:
        rows = [{"symbol": one, "status": "TRADING", "baseAsset": one[:-4], "quoteAsset": "USDT"} for one in SYMBOLS]
        return web.json_response({"symbols": rows})

    async def coin(request: web.Request) -> web.Response:
        symbol, holder, ttl = request.query["symbol"], request.query["id"], request.query.get("ttl")
        aggregator.calls.append((request.method, symbol, ttl))
        if not aggregator.up:
            return web.json_response({}, status=503)
        holders = aggregator.holders.setdefault(symbol, set())
        if request.method == "GET":
            holders.add(holder)
        else:
            holders.discard(holder)
        return web.json_response({"symbol": symbol.lower(), "subscribers": len(holders)})

    app.add_routes([web.get("/api/v3/exchangeInfo", exchange_info), web.route("*", "/coin", coin)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", aggregator
    await runner.cleanup()


@pytest.fixture
def serving(kafka: str, neighbours: tuple[str, Aggregator], monkeypatch: pytest.MonkeyPatch) -> Serving:
    """`async with serving() as socket`: a server; `config` are settings of the trades' topic."""
    monkeypatch.setattr(leases_module, "RETRY_AFTER_S", 0.1)

    @contextlib.asynccontextmanager
    async def running(config: dict[str, str] | None = None, name: str | None = None) -> AsyncIterator[Socket]:
        url, aggregator = neighbours
        name = name or str(uuid.uuid4())
        trades = Topic(f"trades-{name}", 4, RAW_CONFIG | {"retention.ms": "-1"} | (config or {}))
        minitickers = Topic(f"minitickers-{name}", 2, RAW_CONFIG | {"retention.ms": "-1"})
        create_topics(kafka, [trades, minitickers])
        server = SocketServer(kafka, (trades, minitickers), SymbolDirectory(url), Leases(url))
        await server.start("127.0.0.1", 0)
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
                stub = market_pb2_grpc.SocketServiceStub(channel)
                yield Socket(stub, channel, server, trades, minitickers, kafka, aggregator)
        finally:
            await server.stop()

    return running


@pytest_asyncio.fixture(loop_scope="session")
async def socket(serving: Serving) -> AsyncIterator[Socket]:
    async with serving() as running:
        yield running
