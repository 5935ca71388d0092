"""SymbolDirectory against a small real HTTP server."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from aiohttp import web

from api.symbols import SymbolDirectory, rest_url
from flows.domain.errors import ExchangeBlocked, ExchangeUnreachable, RateLimited
from infra.settings import Settings


def row(symbol: str, base: str, quote: str, status: str = "TRADING") -> dict[str, object]:
    return {"symbol": symbol, "baseAsset": base, "quoteAsset": quote, "status": status, "filters": []}


ROWS = [
    row("WBTCUSDT", "WBTC", "USDT"),
    row("BTCUSDT", "BTC", "USDT"),
    row("BTCEUR", "BTC", "EUR"),
    row("ETHBTC", "ETH", "BTC"),
    row("OLDUSDT", "OLD", "USDT", "BREAK"),
    row("币安人生USDT", "币安人生", "USDT"),
]


@dataclass
class Exchange:
    """Answers exchangeInfo with `rows`, or with `status`; counts the questions."""

    url: str = ""
    rows: list[dict[str, object]] = field(default_factory=lambda: list(ROWS))
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    now: float = 0.0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        body = json.dumps({"timezone": "UTC", "symbols": self.rows}) if self.status == 200 else "<html>no</html>"
        return web.Response(text=body, status=self.status, headers=self.headers)


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    exchange, app = Exchange(), web.Application()
    app.add_routes([web.get("/api/v3/exchangeInfo", exchange.answer)])
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    exchange.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield exchange
    await runner.cleanup()


@pytest.fixture
async def directory(exchange: Exchange) -> AsyncIterator[SymbolDirectory]:
    directory = SymbolDirectory(exchange.url, clock=lambda: exchange.now)
    yield directory
    await directory.close()


async def test_symbols_are_found_in_any_case(directory: SymbolDirectory) -> None:
    assert not directory.known
    await directory.refresh()
    assert directory.known
    found = directory.get("btcUSDT")
    assert found
    assert (found.symbol, found.base, found.quote, found.trading) == ("BTCUSDT", "BTC", "USDT", True)
    assert directory.get("币安人生usdt")
    assert directory.get("nosuch") is None
    assert directory.get("btcu\u017fdt") is None  # whose capitals are BTCUSDT


async def test_what_does_not_trade_is_known_but_not_found(directory: SymbolDirectory) -> None:
    await directory.refresh()
    old = directory.get("oldusdt")
    assert old
    assert (old.status, old.trading) == ("BREAK", False)
    assert "OLDUSDT" not in [one.symbol for one in directory.search()]


async def test_search_puts_the_base_first(directory: SymbolDirectory) -> None:
    await directory.refresh()
    assert [one.symbol for one in directory.search(" btc ")] == ["BTCEUR", "BTCUSDT", "ETHBTC", "WBTCUSDT"]
    assert directory.search("xyz") == []
    assert len(directory.search()) == 5


async def test_an_answer_is_kept_for_five_minutes(directory: SymbolDirectory, exchange: Exchange) -> None:
    await asyncio.gather(*(directory.refresh() for _ in range(10)))
    exchange.now = 299
    await directory.refresh()
    assert exchange.asked == 1
    exchange.now, exchange.rows = 300, ROWS[:1]
    await directory.refresh()
    assert exchange.asked == 2
    assert directory.get("ethbtc") is None


@pytest.mark.parametrize("status", [500, 451])
async def test_the_last_answer_stays_while_the_exchange_is_away(
    directory: SymbolDirectory, exchange: Exchange, status: int
) -> None:
    await directory.refresh()
    exchange.now, exchange.status = 300, status
    for _ in range(3):
        await directory.refresh()
    assert exchange.asked == 2
    assert directory.get("btcusdt")
    exchange.now, exchange.status, exchange.rows = 305, 200, [*ROWS, row("NEWUSDT", "NEW", "USDT")]
    await directory.refresh()
    assert directory.get("newusdt")


@pytest.mark.parametrize(
    ("status", "error"),
    [(500, ExchangeUnreachable), (451, ExchangeBlocked), (403, ExchangeBlocked), (429, RateLimited)],
)
async def test_an_exchange_that_never_answered_is_an_error(
    directory: SymbolDirectory, exchange: Exchange, status: int, error: type[Exception]
) -> None:
    exchange.status = status
    with pytest.raises(error):
        await directory.refresh()
    exchange.now, exchange.status = 60, 200
    await directory.refresh()
    assert directory.known


async def test_it_waits_as_long_as_it_is_told(directory: SymbolDirectory, exchange: Exchange) -> None:
    exchange.status, exchange.headers = 429, {"Retry-After": "17"}
    for now in (0, 16):
        exchange.now = now
        with pytest.raises(RateLimited):
            await directory.refresh()
    assert exchange.asked == 1
    exchange.now, exchange.status = 17, 200
    await directory.refresh()


async def test_rubbish_is_no_answer(directory: SymbolDirectory, exchange: Exchange) -> None:
    exchange.rows = []
    with pytest.raises(ExchangeUnreachable, match="no symbols"):
        await directory.refresh()
    exchange.now, exchange.rows = 5, [{"symbol": 1}]
    with pytest.raises(ExchangeUnreachable):
        await directory.refresh()


async def test_nobody_there() -> None:
    directory = SymbolDirectory("http://127.0.0.1:9")
    with pytest.raises(ExchangeUnreachable, match="does not answer"):
        await directory.refresh()
    await directory.close()


def test_where_the_exchange_is() -> None:
    assert rest_url(Settings(port_offset=10)) == "http://127.0.0.1:9453"
    assert rest_url(Settings(exchange="binance")) == "https://data-api.binance.vision"
    assert rest_url(Settings(exchange_rest_url="http://somewhere")) == "http://somewhere"
