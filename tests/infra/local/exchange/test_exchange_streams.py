"""Streams, with a client library that we did not write."""

import asyncio
import json
import signal
import time
from itertools import pairwise

import pytest
import websockets
from conftest import frames

from infra.local.exchange.session import KeepAlive


async def ask(connection, request) -> dict:
    """Send a control message and pass over data until its answer."""
    await connection.send(request if isinstance(request, str) else json.dumps(request))
    async with asyncio.timeout(10):
        while True:
            answer = json.loads(await connection.recv())
            if "e" not in answer and "stream" not in answer:
                return answer


async def test_a_raw_stream_carries_the_payload_alone(start):
    client = await start()
    async with client.connect("/ws/btcusdt@aggTrade") as connection:
        received = await frames(connection, 20)
    assert list(received[0]) == ["e", "E", "s", "a", "p", "q", "f", "l", "T", "m", "M"]
    assert [f["a"] for f in received] == list(range(received[0]["a"], received[0]["a"] + 20))
    assert all(b["f"] == a["l"] + 1 and b["E"] >= a["E"] >= a["T"] for a, b in pairwise(received))
    assert abs(received[-1]["E"] - time.time() * 1000) < 5000


async def test_a_combined_stream_names_the_stream(start):
    client = await start()
    async with client.connect("/stream?streams=btcusdt@aggTrade/ethusdt@trade") as connection:
        received = await frames(connection, 100)
    by_stream = {f["stream"]: f["data"] for f in received}
    assert by_stream["btcusdt@aggTrade"]["e"] == "aggTrade"
    assert by_stream["ethusdt@trade"]["e"] == "trade"
    ids = [f["data"]["t"] for f in received if f["stream"] == "ethusdt@trade"]
    assert ids == list(range(ids[0], ids[0] + len(ids)))


async def test_times_in_microseconds(start):
    client = await start()
    async with client.connect("/ws/btcusdt@aggTrade?timeUnit=MICROSECOND") as connection:
        (frame,) = await frames(connection, 1)
    assert frame["E"] > 10**15
    assert frame["T"] > 10**15


async def test_subscribe_unsubscribe_list(start):
    client = await start()
    async with client.connect("/ws") as connection:
        streams = ["btcusdt@aggTrade", "nosuchcoin@aggTrade"]
        assert await ask(connection, {"method": "SUBSCRIBE", "params": streams, "id": 1}) == {"result": None, "id": 1}
        assert (await frames(connection, 1))[0]["s"] == "BTCUSDT"
        assert await ask(connection, {"method": "LIST_SUBSCRIPTIONS", "id": 2}) == {"result": streams, "id": 2}
        unsubscribe = {"method": "UNSUBSCRIBE", "params": streams[:1], "id": "three"}
        assert await ask(connection, unsubscribe) == {"result": None, "id": "three"}
        assert await ask(connection, {"method": "LIST_SUBSCRIPTIONS", "id": 4}) == {"result": streams[1:], "id": 4}


async def test_a_property_turns_raw_into_combined(start):
    client = await start()
    async with client.connect("/ws/btcusdt@aggTrade") as connection:
        assert (await ask(connection, {"method": "GET_PROPERTY", "params": ["combined"], "id": 1}))["result"] is False
        await ask(connection, {"method": "SET_PROPERTY", "params": ["combined", True], "id": 2})
        assert (await frames(connection, 1))[0]["stream"] == "btcusdt@aggTrade"


@pytest.mark.parametrize(
    ("request_text", "code"),
    [
        ("{", 3),
        ("[1]", 2),
        ("{}", 2),
        ('{"method":"BUY","id":1}', 2),
        ('{"method":"SUBSCRIBE","id":1}', 2),
        ('{"method":"SUBSCRIBE","params":"btcusdt@aggTrade","id":1}', 2),
        ('{"method":"SUBSCRIBE","params":[1],"id":1}', 2),
        ('{"method":"SUBSCRIBE","params":["a"],"id":1.5}', 2),
        ('{"method":"GET_PROPERTY","params":["combined","x"],"id":1}', 2),
        ('{"method":"GET_PROPERTY","params":["colour"],"id":1}', 0),
        ('{"method":"SET_PROPERTY","params":["combined",1],"id":1}', 1),
    ],
)
async def test_a_malformed_request_is_answered_with_its_code(start, request_text, code):
    client = await start(rate=10.0)
    async with client.connect("/ws") as connection:
        answer = await ask(connection, request_text)
        assert answer["code"] == code
        assert answer["msg"]
        assert await ask(connection, {"method": "LIST_SUBSCRIPTIONS", "id": 9}) == {"result": [], "id": 9}


@pytest.mark.parametrize("kind", ["text", "ping", "pong"])
async def test_the_sixth_message_in_a_second_disconnects(start, kind):
    client = await start(rate=10.0)
    async with client.connect("/ws") as connection:
        for number in range(6):
            if kind == "text":
                await connection.send(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}))
            elif kind == "ping":
                await connection.ping()
            else:
                await connection.pong()
        async with asyncio.timeout(5):
            await connection.wait_closed()
    assert connection.close_code == 1008


async def test_the_1025th_stream_is_refused(start):
    client = await start(rate=10.0)
    names = [f"coin{number}usdt@aggTrade" for number in range(1025)]
    async with client.connect("/stream?streams=" + "/".join(names[:1024])) as connection:
        assert (await ask(connection, {"method": "SUBSCRIBE", "params": names[1023:], "id": 1}))["code"] == 2
        assert len((await ask(connection, {"method": "LIST_SUBSCRIPTIONS", "id": 2}))["result"]) == 1024
    with pytest.raises(websockets.InvalidStatus):
        await client.connect("/stream?streams=" + "/".join(names))


async def test_too_many_connection_attempts_are_refused(start):
    client = await start(rate=10.0, connection_attempts=3)
    for _ in range(3):
        async with client.connect("/ws"):
            pass
    with pytest.raises(websockets.InvalidStatus) as refused:
        await client.connect("/ws")
    assert refused.value.response.status_code == 429


async def test_who_answers_pings_stays_and_who_does_not_is_dropped(start):
    client = await start(rate=10.0, keep_alive=KeepAlive(ping_every_s=0.25, pong_within_s=0.5))
    async with client.connect("/ws") as alive:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        writer.write(f"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n".encode())
        await writer.drain()
        async with asyncio.timeout(5):
            while True:  # pings come, no pong goes, until the end
                try:
                    if not await reader.read(1000):
                        break
                except ConnectionError:
                    break
        writer.close()
        assert await ask(alive, {"method": "LIST_SUBSCRIPTIONS", "id": 1}) == {"result": [], "id": 1}


async def test_a_connection_has_an_age(start):
    client = await start(keep_alive=KeepAlive(max_age_s=0.5))
    async with client.connect("/ws/btcusdt@aggTrade") as connection, asyncio.timeout(5):
        async for _ in connection:
            pass
    assert connection.close_code == 1001


async def test_minitickers_come_each_second_for_what_changed(start):
    client = await start(rate=100.0)
    async with client.connect("/ws/!miniTicker@arr/btcusdt@miniTicker") as connection:
        received = await frames(connection, 4)
    arrays = [f for f in received if isinstance(f, list)]
    single = next(f for f in received if isinstance(f, dict))
    assert single in arrays[0] or single in arrays[1]
    assert 800 <= arrays[1][0]["E"] - arrays[0][0]["E"] <= 2000
    for ticker in arrays[1]:
        assert list(ticker) == ["e", "E", "s", "c", "o", "h", "l", "v", "q"]
        assert float(ticker["l"]) <= float(ticker["c"]) <= float(ticker["h"])


async def test_sigterm_announces_the_end(spawn):
    running = await spawn()
    async with (
        running.client.connect("/stream?streams=sandusdt@aggTrade") as combined,
        running.client.connect("/ws") as raw,
    ):
        running.process.send_signal(signal.SIGTERM)
        assert (await frames(raw, 1))[0]["e"] == "serverShutdown"
        while (frame := (await frames(combined, 1))[0])["stream"] != "!serverShutdown":
            pass
        assert frame["data"]["e"] == "serverShutdown"
        await raw.wait_closed()
    assert raw.close_code == 1001
    assert running.process.wait(10) == 0
