"""Each fault, as a client sees it."""

import asyncio
import json
from itertools import pairwise

import pytest
import websockets
from conftest import frames


async def watched(connection, count: int = 200) -> list[dict]:
    """The next trades; frames that do not parse are passed over."""
    trades = []
    async with asyncio.timeout(10):
        while len(trades) < count:
            trades.append(json.loads(await connection.recv()))
    return trades


async def test_cut_resets_the_connection(start):
    client = await start()
    async with client.connect("/ws/ethusdt@aggTrade") as spared, client.connect("/ws/btcusdt@aggTrade") as connection:
        await frames(connection, 1)
        assert (await client.fault("cut", streams=["btcusdt@aggTrade"]))["connections"] == 1
        with pytest.raises(websockets.ConnectionClosedError):
            await watched(connection, 100_000)
        await watched(spared)


async def test_blackhole_is_silent_and_leaves_a_hole(start):
    client = await start()
    async with client.connect("/ws/btcusdt@aggTrade") as connection:
        before = (await frames(connection, 1))[0]["a"]
        await client.fault("blackhole")

        async def quiet() -> bool:
            try:
                async with asyncio.timeout(0.2):
                    await connection.recv()
            except TimeoutError:
                return True
            return False

        await client.until(quiet)
        assert connection.state is websockets.State.OPEN
        pong = await connection.ping()
        assert not pong.done()
        await client.fault("clear")
        after = (await frames(connection, 1))[0]["a"]
        await pong
    assert after > before + 20
    missed = (await client.get("aggTrades", symbol="BTCUSDT", fromId=before, limit=5)).json()
    assert [row["a"] for row in missed] == list(range(before, before + 5))


async def test_server_shutdown_event_then_close(start):
    client = await start(rate=10.0)
    async with client.connect("/stream?streams=sandusdt@aggTrade") as connection:
        await client.fault("serverShutdown", close_after_ms=50)
        async with asyncio.timeout(5):
            events = [json.loads(message)["stream"] async for message in connection]
    assert "!serverShutdown" in events
    assert connection.close_code == 1001


async def test_duplicates_and_reordering(start):
    client = await start()
    async with client.connect("/ws/btcusdt@aggTrade") as connection:
        await client.fault("duplicates", rate=0.2)
        await client.fault("reorder", rate=0.2, delay_ms=20)
        ids = [trade["a"] for trade in await watched(connection, 500)]
    assert any(b == a for a, b in pairwise(ids))
    assert any(b < a for a, b in pairwise(ids))
    inner = set(range(min(ids) + 100, max(ids) - 150))
    assert inner <= set(ids)


@pytest.mark.parametrize("rest", [True, False])
async def test_skipped_ids_are_holes_that_rest_may_fill(start, rest):
    client = await start()
    async with client.connect("/ws/btcusdt@aggTrade") as connection:
        await watched(connection, 10)
        await client.fault("skip", count=5, rate=0.5, symbols=["BTCUSDT"], rest=rest)
        ids = [trade["a"] for trade in await watched(connection)]
    missing = sorted(set(range(ids[0], ids[-1])) - set(ids))
    assert 4 <= len(missing) <= 5
    rows = (await client.get("aggTrades", symbol="BTCUSDT", fromId=ids[0], limit=200)).json()
    assert ({row["a"] for row in rows} >= set(missing)) is rest
    if not rest:
        klines = (await client.get("klines", symbol="BTCUSDT", interval="1m")).json()
        listed = (await client.get("aggTrades", symbol="BTCUSDT", fromId=0, limit=1000)).json()
        assert sum(kline[8] for kline in klines) > sum(row["l"] - row["f"] + 1 for row in listed if row["a"] < ids[0])


async def test_stragglers_have_an_old_trade_time(start):
    client = await start()
    async with client.connect("/ws/btcusdt@aggTrade") as connection:
        await client.fault("stragglers", rate=0.1, late_ms=2000)
        trades = await watched(connection)
    late = [trade for trade in trades if trade["E"] - trade["T"] >= 2000]
    assert 0 < len(late) < len(trades) / 2
    (row,) = (await client.get("aggTrades", symbol="BTCUSDT", fromId=late[0]["a"], limit=1)).json()
    assert row["T"] == late[0]["T"]


@pytest.mark.parametrize("kind", ["truncated", "types", "decimals", "invalid_row"])
async def test_bad_frames_come_besides_the_good_ones(start, kind):
    client = await start()
    async with client.connect("/ws/btcusdt@aggTrade") as connection:
        await client.fault("bad_frames", rate=0.2, kinds=[kind])
        async with asyncio.timeout(10):
            texts = [await connection.recv() for _ in range(200)]
    good, bad = [], []
    for text in texts:
        try:
            trade = json.loads(text)
            fine = isinstance(trade["p"], str) and trade["f"] >= 0 and len(trade["q"].split(".")[1]) == 8
        except ValueError:
            fine = False
        (good if fine else bad).append(text)
    assert bad
    ids = [json.loads(text)["a"] for text in good]
    assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_clock_skew_moves_event_times_for_a_while(start):
    client = await start()
    async with client.connect("/ws/btcusdt@aggTrade") as connection:
        await client.fault("clock_skew", offset_ms=60_000, duration_ms=300)
        offsets = [trade["E"] - trade["T"] > 50_000 for trade in await watched(connection, 600)]
    assert any(offsets)
    assert not offsets[-1]


async def test_rest_fails_for_a_while(start):
    client = await start(rate=10.0)
    await client.fault("rest_errors", status=451, path="exchangeInfo", count=2)
    assert (await client.get("ping")).status_code == 200
    assert [(await client.get("exchangeInfo")).status_code for _ in range(3)] == [451, 451, 200]
    await client.fault("rest_errors", status=429, retry_after_s=7)
    assert (await client.get("ping")).headers["Retry-After"] == "7"
    await client.fault("clear")
    assert (await client.get("ping")).status_code == 200


@pytest.mark.parametrize(
    "order", [{"fault": "meteor"}, {}, [], [1], {"fault": "skip", "rate": "much"}, {"fault": "cut", "depth": 1}]
)
async def test_a_wrong_order_is_refused(start, order):
    client = await start(rate=10.0)
    answer = await client.http.post(f"http://127.0.0.1:{client.port}/sim/faults", json=order)
    assert answer.status_code == (200 if order == [] else 422)
