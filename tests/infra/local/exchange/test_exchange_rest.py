"""REST answers, from one history."""

import time
from collections import defaultdict
from decimal import Decimal

import pytest

from infra.local.exchange.history import History
from infra.local.exchange.trade import Trade


async def traded(client, symbol: str = "BTCUSDT", count: int = 300) -> None:
    """Wait until a symbol has some trades."""

    async def enough() -> bool:
        return len((await client.get("aggTrades", symbol=symbol, limit=1000)).json()) >= count

    await client.until(enough)


@pytest.mark.parametrize(
    ("path", "params", "code"),
    [
        ("aggTrades", {}, -1102),
        ("aggTrades", {"symbol": "NOSUCH"}, -1121),
        ("aggTrades", {"symbol": "btcusdt"}, -1100),
        ("aggTrades", {"symbol": "BTCUSDT", "limit": "ten"}, -1100),
        ("aggTrades", {"symbol": "BTCUSDT", "limit": "0"}, -1130),
        ("aggTrades", {"symbol": "BTCUSDT", "fromId": "-1"}, -1100),
        ("aggTrades", {"symbol": "BTCUSDT", "fromId": "1", "startTime": "1"}, -1128),
        ("aggTrades", {"symbol": "BTCUSDT", "startTime": ""}, -1105),
        ("aggTrades", {"symbol": "BTCUSDT", "colour": "red"}, -1101),
        ("klines", {"symbol": "BTCUSDT"}, -1102),
        ("klines", {"symbol": "BTCUSDT", "interval": "2s"}, -1120),
        ("exchangeInfo", {"symbol": "NOSUCH"}, -1121),
        ("exchangeInfo", {"symbols": "BTCUSDT"}, -1100),
        ("ticker/24hr", {"symbols": '["NOSUCH"]'}, -1121),
    ],
)
async def test_wrong_requests_are_refused_as_binance_does(start, path, params, code):
    client = await start(rate=10.0)
    answer = await client.get(path, **params)
    assert answer.status_code == 400
    assert answer.json()["code"] == code
    assert answer.json()["msg"]


async def test_agg_trades_by_id_time_and_newest(start):
    client = await start()
    await traded(client)
    rows = (await client.get("aggTrades", symbol="BTCUSDT", fromId=0, limit=300)).json()
    assert list(rows[0]) == ["a", "p", "q", "f", "l", "T", "m", "M"]
    assert [row["a"] for row in rows] == list(range(rows[0]["a"], rows[0]["a"] + 300))
    middle = rows[100]
    assert (await client.get("aggTrades", symbol="BTCUSDT", fromId=middle["a"], limit=5)).json() == rows[100:105]
    start_ms, end_ms = rows[50]["T"], rows[60]["T"]
    window = (await client.get("aggTrades", symbol="BTCUSDT", startTime=start_ms, endTime=end_ms)).json()
    assert window == [row for row in rows if start_ms <= row["T"] <= end_ms]
    until = (await client.get("aggTrades", symbol="BTCUSDT", endTime=end_ms, limit=3)).json()
    assert until == [row for row in rows if row["T"] <= end_ms][-3:]
    newest = (await client.get("aggTrades", symbol="BTCUSDT", limit=2)).json()
    assert newest[0]["a"] >= rows[-2]["a"]
    assert len((await client.get("aggTrades", symbol="BTCUSDT", limit=5000)).json()) <= 1000


async def all_trades(client, symbol: str) -> list[dict]:
    rows: list[dict] = []
    while page := (
        await client.get("aggTrades", symbol=symbol, fromId=rows[-1]["a"] + 1 if rows else 0, limit=1000)
    ).json():
        rows += page
        if len(page) < 1000:
            break
    return rows


async def test_klines_equal_a_recomputation_from_the_trades(start):
    client = await start(rate=4000.0)
    end = (await client.get("time")).json()["serverTime"] // 1000 * 1000 + 3000

    async def over() -> bool:
        return (await client.get("time")).json()["serverTime"] >= end + 300

    await client.fault("stragglers", rate=0.05, late_ms=1500, duration_ms=2000)
    await client.until(over)
    for symbol in ("BTCUSDT", "ETHUSDT", "DOTUSDT"):
        seconds = defaultdict(list)
        for row in await all_trades(client, symbol):
            seconds[row["T"] // 1000 * 1000].append(row)
        klines = (await client.get("klines", symbol=symbol, interval="1s", endTime=end - 1)).json()
        assert len([kline for kline in klines if kline[8]]) >= 3
        for kline in klines:
            assert kline[6] == kline[0] + 999
            compare(kline, seconds[kline[0]])


def compare(kline: list, trades: list[dict]) -> None:
    """A kline holds these trades, and only these."""
    assert kline[8] == sum(row["l"] - row["f"] + 1 for row in trades)
    if not trades:
        return
    prices = [Decimal(row["p"]) for row in trades]
    amounts = [(Decimal(row["q"]), Decimal(row["q"]) * Decimal(row["p"]), row["m"]) for row in trades]
    assert [Decimal(x) for x in kline[1:5]] == [prices[0], max(prices), min(prices), prices[-1]]
    assert Decimal(kline[5]) == sum(base for base, _, _ in amounts)
    assert Decimal(kline[9]) == sum(base for base, _, maker in amounts if not maker)
    assert 0 <= sum(quote for _, quote, _ in amounts) - Decimal(kline[7]) < Decimal("1e-8")
    assert 0 <= sum(quote for _, quote, maker in amounts if not maker) - Decimal(kline[10]) < Decimal("1e-8")


async def test_klines_without_trades_repeat_the_close(start):
    client = await start(rate=4000.0, symbols=1)
    await traded(client)
    client.exchange.market.set_rate(1e-9)
    last = (await client.get("aggTrades", symbol="BTCUSDT", limit=1)).json()[0]
    quiet = last["T"] // 1000 * 1000 + 1000

    async def later() -> bool:
        return (await client.get("time")).json()["serverTime"] > quiet

    await client.until(later)
    (kline,) = (await client.get("klines", symbol="BTCUSDT", interval="1s", startTime=quiet, limit=1)).json()
    assert kline[1:5] == [last["p"]] * 4
    assert (kline[5], kline[8]) == ("0.00000000", 0)


async def test_exchange_info_lists_symbols_and_limits(start):
    client = await start(rate=10.0, symbols=60)
    info = (await client.get("exchangeInfo")).json()
    assert len(info["symbols"]) == 60
    assert {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000} in info[
        "rateLimits"
    ]
    (one,) = (await client.get("exchangeInfo", symbol="币安人生USDT")).json()["symbols"]
    assert (one["symbol"], one["baseAsset"], one["quoteAsset"], one["status"]) == (
        "币安人生USDT",
        "币安人生",
        "USDT",
        "TRADING",
    )
    two = (await client.get("exchangeInfo", symbols='["BTCUSDT","ETHUSDT"]')).json()["symbols"]
    assert [row["symbol"] for row in two] == ["BTCUSDT", "ETHUSDT"]


async def test_tickers_and_single_trades(start):
    client = await start()
    await traded(client)
    ticker = (await client.get("ticker/24hr", symbol="BTCUSDT")).json()
    assert Decimal(ticker["lowPrice"]) <= Decimal(ticker["lastPrice"]) <= Decimal(ticker["highPrice"])
    assert ticker["count"] > 300
    assert len((await client.get("ticker/price")).json()) == 50
    rows = (await client.get("trades", symbol="BTCUSDT", limit=100)).json()
    assert [row["id"] for row in rows] == list(range(rows[0]["id"], rows[0]["id"] + 100))


async def test_weights_are_counted_and_too_much_is_refused_then_banned(start):
    client = await start(rate=10.0, weight_limit=40)
    weights = []
    for path in ("ping", "exchangeInfo", "aggTrades", "klines"):
        answer = await client.get(path, **({"symbol": "BTCUSDT"} if path != "ping" else {}))
        weights.append(int(answer.headers["X-MBX-USED-WEIGHT-1M"]))
    if weights == sorted(weights):  # the minute may have turned in between
        assert weights == [1, 21, 25, 27]
    statuses = [(await client.get("exchangeInfo")).status_code for _ in range(60)]
    assert statuses[0] in (200, 429)
    assert 429 in statuses
    assert statuses[-1] == 418
    banned = await client.get("ping")
    assert banned.status_code == 418
    assert banned.json()["code"] == -1003
    assert int(banned.headers["Retry-After"]) > 0


async def test_health_and_control(start):
    client = await start(rate=100.0)
    assert (await client.get("/livez")).status_code == 200
    assert (await client.get("/readyz")).status_code == 200
    assert "exchange_trades_total" in (await client.get("/metrics")).text
    url = f"http://127.0.0.1:{client.port}/sim/rate"
    assert (await client.http.post(url, json={"rate": 5000})).status_code == 200
    assert (await client.http.post(url, json={"rate": 1e9})).status_code == 422
    assert (await client.http.post(url, content=b"\xff")).status_code == 422
    await traded(client)
    state = (await client.get("/sim/state")).json()
    assert state["rate"] == 5000
    assert state["trades"] > 300
    assert state["last_ids"]["BTCUSDT"] > 0


async def test_after_days_off_a_price_is_that_of_the_last_trade(start, tmp_path):
    long_ago = time.time_ns() // 1_000_000 - 3 * 86_400_000
    with History(tmp_path / "exchange") as history:
        history.append([Trade("SANDUSDT", long_ago, 7, 12_340_000, 100_000_000, 9, 1, long_ago, True)])
    client = await start(rate=10.0)  # the least popular of 50: nobody trades it for a while
    price = (await client.get("ticker/price", symbol="SANDUSDT")).json()["price"]
    last = (await client.get("aggTrades", symbol="SANDUSDT", limit=1)).json()[0]
    assert last["a"] > 7 or price == "0.12340000"
