"""A client that we did not write: ccxt, pointed at the simulated exchange."""

import asyncio

import ccxt.pro
import pytest


@pytest.fixture
async def binance(start):
    client = await start()
    exchange = ccxt.pro.binance({"options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False}})
    exchange.urls["api"]["public"] = f"http://127.0.0.1:{client.port}/api/v3"
    exchange.urls["api"]["ws"]["spot"] = f"ws://127.0.0.1:{client.port}/ws"
    yield exchange
    await exchange.close()


async def test_markets_trades_and_candles(binance):
    markets = await binance.load_markets()
    assert len(markets) == 50
    assert markets["BTC/USDT"]["precision"]["price"] == 0.01
    assert markets["BTC/USDT"]["active"]
    trades = await binance.fetch_trades("BTC/USDT", limit=10)
    assert all(trade["side"] in ("buy", "sell") and trade["price"] > 0 for trade in trades)
    candles = await binance.fetch_ohlcv("BTC/USDT", "1s", limit=5)
    assert all(low <= close <= high for _, _, high, low, close, _ in candles)
    ticker = await binance.fetch_ticker("ETH/USDT")
    assert ticker["low"] <= ticker["last"] <= ticker["high"]
    with pytest.raises(ccxt.BadSymbol):
        await binance.public_get_aggtrades({"symbol": "NOSUCH"})


@pytest.mark.parametrize("name", ["trade", "aggTrade"])
async def test_watching(binance, name):
    async with asyncio.timeout(20):
        trades = []
        while len(trades) < 20:
            trades += await binance.watch_trades("BTC/USDT", params={"name": name})
    ids = [int(trade["id"]) for trade in trades]
    assert ids == sorted(ids)
    assert all(trade["symbol"] == "BTC/USDT" for trade in trades)
