"""Recordings, played once with their times moved to now."""

import asyncio
import contextlib
import gzip
import json
import time
from pathlib import Path

import pytest
import websockets
import zstandard
from conftest import frames

from infra.local.exchange.app import Config, serving
from infra.local.exchange.history import History
from infra.local.exchange.recording import read

SHARED = Path(__file__).parents[5] / "shared/data/binance"


def line(agg_id: int, event_ms: int, symbol: str = "BTCUSDT", combined: bool = False, **fields) -> str:
    trade = {
        "e": "aggTrade",
        "E": event_ms,
        "s": symbol,
        "a": agg_id,
        "p": "81",
        "q": "4.8510",
        "f": agg_id,
        "l": agg_id,
    }
    text = json.dumps(trade | {"T": event_ms - 1, "m": False, "M": True} | fields)
    return f'{{"stream":"{symbol.lower()}@aggTrade","data":{text}}}' if combined else text


def test_all_forms_are_read(tmp_path, caplog):
    lines = [line(1, 1000), "garbage", line(2, 1001, combined=True), '{"e":"trade"}', line(3, 1002, p="1e5")]
    text = "\n".join(lines).encode()
    (tmp_path / "a.jsonl").write_bytes(text)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(text))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(text))
    for name in ("a.jsonl", "a.jsonl.gz", "a.jsonl.zst"):
        caplog.clear()
        trades = list(read(tmp_path / name))
        assert [trade.agg_id for trade in trades] == [1, 2]
        assert [trade.wire.decode() for trade in trades] == [line(1, 1000), line(2, 1001)]
        assert [record.args[1] for record in caplog.records] == [2, 5]


async def test_frames_keep_every_byte_but_their_times(start, recorded):
    odd = [line(10 + n, 1_700_000_000_000 + 40 * n) for n in range(0, 10, 2)]
    even = [line(70 + n, 1_700_000_000_000 + 40 * n, "ETHUSDT", combined=True) for n in range(1, 10, 2)]
    files = [recorded("a.jsonl", odd), recorded("b.jsonl", even)]
    client = await start(recordings=files, recording_waits=True)
    async with client.connect("/ws/btcusdt@aggTrade/ethusdt@aggTrade") as connection:
        texts = [await connection.recv() for _ in range(10)]
    played = [json.loads(text) for text in texts]
    assert [trade["a"] for trade in played] == [10, 71, 12, 73, 14, 75, 16, 77, 18, 79]
    assert [trade["E"] - played[0]["E"] for trade in played] == [40 * n for n in range(10)]
    assert all(trade["T"] == trade["E"] - 1 for trade in played)
    assert abs(played[0]["E"] - time.time() * 1000) < 10_000
    originals = {json.loads(text)["a"]: text for text in (line(10 + n, 1_700_000_000_000 + 40 * n) for n in range(10))}
    for text, trade in zip(texts, played, strict=True):
        if trade["s"] == "BTCUSDT":
            moved = json.loads(originals[trade["a"]])
            restored = text.replace(str(trade["E"]), str(moved["E"])).replace(str(trade["T"]), str(moved["T"]))
            assert restored == originals[trade["a"]]
    symbols = (await client.get("exchangeInfo")).json()["symbols"]
    assert {row["symbol"] for row in symbols} == {"BTCUSDT", "ETHUSDT"}
    rows = (await client.get("aggTrades", symbol="BTCUSDT", fromId=0)).json()
    assert [(row["a"], row["p"], row["q"]) for row in rows] == [
        (10 + n, "81.00000000", "4.85100000") for n in range(0, 10, 2)
    ]

    async def finished() -> bool:
        return bool((await client.get("/sim/state")).json()["recording_finished"])

    await client.until(finished)


async def test_a_restart_goes_on_where_time_has_come_to(spawn, recorded):
    lines = [line(1 + n, 1_700_000_000_000 + 20 * n) for n in range(500)]
    file = recorded("long.jsonl", lines)
    first = await spawn("--recording", str(file))
    async with first.client.connect("/ws/btcusdt@aggTrade") as connection:
        seen = [trade["a"] for trade in await frames(connection, 5)]
        first.process.kill()
        with contextlib.suppress(websockets.ConnectionClosedError):
            async for _ in connection:
                pass
    second = await spawn("--recording", str(file))
    async with second.client.connect("/ws/btcusdt@aggTrade") as connection:
        again = [trade["a"] for trade in await frames(connection, 5)]
    assert again[0] > seen[-1]
    assert again == list(range(again[0], again[0] + 5))
    rows = (await second.client.get("aggTrades", symbol="BTCUSDT", fromId=0, limit=1000)).json()
    assert [row["a"] for row in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= again[-1]


async def test_a_recording_and_a_market_do_not_share_a_directory(start, recorded, tmp_path):
    file = recorded("a.jsonl", [line(1, 1_700_000_000_000)])
    async with serving(Config(tmp_path / "recording", recordings=[file]), "127.0.0.1", 0) as (exchange, _, _):
        async with asyncio.timeout(10):
            while not exchange.recording.finished:  # noqa: ASYNC110 - nothing to wait on
                await asyncio.sleep(0.01)
    with pytest.raises(ValueError, match="holds a recording"):
        await start(data_dir=tmp_path / "recording")
    with History(tmp_path / "market") as history:
        history.append(read(file))
    with pytest.raises(ValueError, match="holds other trades"):
        await start(data_dir=tmp_path / "market", recordings=[file])


@pytest.mark.skipif(not SHARED.exists(), reason="the recorded data are not beside this checkout")
async def test_the_shared_recordings_play(start):
    files = sorted(SHARED.glob("spot_*.gz"))
    client = await start(recordings=files, recording_speed=50.0)
    async with client.connect("/stream?streams=btcusdt@aggTrade/ethusdt@aggTrade/ltcusdt@aggTrade") as connection:
        received = [frame["data"] for frame in await frames(connection, 300)]
    ids = [trade["a"] for trade in received if trade["s"] == "BTCUSDT"]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert ids[0] >= 3_100_000_000
