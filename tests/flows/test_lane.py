"""A lane against an exchange that misbehaves as it is told: a WebSocket server in the test's own event loop."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus

import pytest
import websockets
from websockets.asyncio.server import ServerConnection, serve

from flows import feed as feed_module
from flows import streaming as ingest_module
from flows.connectors.kafka_log import KafkaLog
from flows.domain.errors import DeliveryFailed
from flows.lane import Lane
from flows.streaming import Ingest
from flows.venues.binance import failures
from flows.venues.binance.protocol import Payload
from flows.venues.binance.rest import RestClient
from infra.local.part import free_port

Script = Callable[[ServerConnection, int], Awaitable[None]]


class Exchange:
    """Runs `script(connection, number)` for each connection; `refuse` answers handshakes with 503 instead."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.connections: list[ServerConnection] = []
        self.attempts = 0
        self.refuse = False
        self.port = 0

    def handshake(self, connection, _request):
        self.attempts += 1
        return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "") if self.refuse else None

    async def serve(self, connection: ServerConnection) -> None:
        self.connections.append(connection)
        with contextlib.suppress(websockets.ConnectionClosed):
            await self._script(connection, len(self.connections))


class Heard:
    """A feed that keeps what a lane handed on."""

    holding = False

    def __init__(self) -> None:
        self.payloads: list[Payload] = []
        self.bad: list[tuple[bytes, str]] = []
        self.events: list[str] = []

    def opened(self) -> None:
        self.events.append("opened")

    def subscribed(self) -> None:
        self.events.append("subscribed")

    def lost(self) -> None:
        self.events.append("lost")

    def take(self, payload: Payload) -> None:
        self.payloads.append(payload)

    def tick(self, event_time: int) -> None:
        pass

    @property
    def ids(self) -> list[int]:
        return [json.loads(payload.data)["a"] for payload in self.payloads]


@contextlib.asynccontextmanager
async def lane_on(script: Script, *streams: str) -> AsyncIterator[tuple[Exchange, Lane, Heard]]:
    exchange, heard = Exchange(script), Heard()
    async with serve(exchange.serve, "127.0.0.1", 0, process_request=exchange.handshake, ping_interval=None) as server:
        port = server.sockets[0].getsockname()[1]
        lane = Lane("lane", f"ws://127.0.0.1:{port}", heard, lambda frame, why: heard.bad.append((frame, why)))
        lane.want(frozenset(streams))
        task = asyncio.create_task(lane.run())
        try:
            yield exchange, lane, heard
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def until(condition: Callable[[], object], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what happens is in other tasks
            await asyncio.sleep(0.01)


def agg_trade(a: int, event_ms: int | None = None) -> str:
    event = event_ms or time.time_ns() // 1_000_000
    return f'{{"stream":"btcusdt@aggTrade","data":{{"e":"aggTrade","E":{event},"s":"BTCUSDT","a":{a}}}}}'


SHUTDOWN = '{"stream":"!serverShutdown","data":{"e":"serverShutdown","E":1790000000000}}'


async def answered(connection: ServerConnection) -> None:
    """Take one control message."""
    await connection.send(json.dumps({"result": None, "id": json.loads(await connection.recv())["id"]}))


async def forever(connection: ServerConnection, _number: int = 0) -> None:
    async for message in connection:
        await connection.send(json.dumps({"result": None, "id": json.loads(message)["id"]}))


async def test_a_connection_lost_while_it_subscribes_is_opened_again():
    async def script(connection, number):
        if number == 1:
            await answered(connection)
            connection.transport.abort()
        else:
            await forever(connection)

    streams = [f"sim{n:04}usdt@aggTrade" for n in range(450)]  # three messages
    async with lane_on(script, *streams) as (_, lane, _heard):
        await until(lambda: lane.active == frozenset(streams))


async def test_a_new_connection_lost_during_the_rollover_is_opened_again():
    async def script(connection, number):
        await answered(connection)
        if number == 1:
            await connection.send(SHUTDOWN)
            await until(lambda: len(exchange.connections) == 2)
        if number < 3:
            await connection.close()
        await forever(connection)

    async with lane_on(script, "btcusdt@aggTrade") as (exchange, lane, _):
        await until(lambda: len(exchange.connections) == 3 and lane.active)
        assert lane.heartbeat_ms() is None  # a notice of shutdown is no event of the market


async def test_a_rollover_that_finds_no_one_keeps_the_old_connection_and_tries_again():
    async def script(connection, number):
        await answered(connection)
        if number == 1:
            exchange.refuse = True
            await connection.send(SHUTDOWN)
            await until(lambda: exchange.attempts >= 3)
            await connection.send(agg_trade(1))
            await until(lambda: heard.ids == [1])
            exchange.refuse = False
        else:
            await connection.send(agg_trade(2))
        await forever(connection)

    async with lane_on(script, "btcusdt@aggTrade") as (exchange, lane, heard):
        await until(lambda: heard.ids == [1, 2], 30)
        await until(lambda: exchange.connections[0].state is websockets.State.CLOSED)
        assert lane.connected


async def test_shutdowns_announced_again_and_again_do_not_make_a_storm_of_connections():
    async def script(connection, _number):
        await answered(connection)
        for a in range(1_000_000):
            await connection.send(SHUTDOWN)
            await connection.send(agg_trade(a))
            await asyncio.sleep(0.01)

    async with lane_on(script, "btcusdt@aggTrade") as (exchange, _lane, heard):
        await until(lambda: len(heard.payloads) > 300)
        assert exchange.attempts <= 15  # it was a new connection with each notice


async def test_an_impossible_event_time_does_not_carry_the_heartbeats_away():
    year_2100_ms = 4_102_444_800_000

    async def script(connection, _number):
        await answered(connection)
        for event_ms in (year_2100_ms, None, 2**63, 10**30):
            await connection.send(agg_trade(1, event_ms))
        await connection.send(agg_trade(2))
        await forever(connection)

    async with lane_on(script, "btcusdt@aggTrade") as (exchange, lane, heard):
        await until(lambda: heard.payloads and heard.ids[-1] == 2)
        assert lane.heartbeat_ms() <= time.time_ns() // 1_000_000 + 1000
        assert len(exchange.connections) == 1
        assert len(heard.payloads) + len(heard.bad) == 5


async def test_a_frame_in_fragments_is_one_frame():
    whole = agg_trade(1, 1_790_000_000_000)

    async def script(connection, _number):
        await answered(connection)
        await connection.send([whole[:20], whole[20:50], whole[50:]])
        await connection.send(agg_trade(2))
        await connection.send(b"\x00\xff")
        await forever(connection)

    async with lane_on(script, "btcusdt@aggTrade") as (_, _lane, heard):
        await until(lambda: heard.bad)
        assert heard.ids == [1, 2]
        assert json.loads(heard.payloads[0].data) == json.loads(whole)["data"]
        assert heard.bad[0][0] == b"\x00\xff"


@pytest.mark.parametrize(("attempt", "most_s"), [(0, 0.25), (5, 8.0), (50, 30.0), (100_000, 30.0)])
def test_pauses_grow_to_a_cap_however_long_the_exchange_is_away(attempt, most_s):
    pauses = [failures.pause_before_retry(failures.ExchangeUnreachable("away"), attempt) for _ in range(200)]
    assert 0 < min(pauses) < most_s / 2
    assert max(pauses) <= most_s


def test_a_rate_limit_without_a_wait_is_still_a_pause():
    assert failures.pause_before_retry(failures.RateLimited("429", 0), 0) >= 1


async def test_while_kafka_is_away_no_connection_is_read_not_even_a_new_one(monkeypatch):
    monkeypatch.setattr(ingest_module, "HIGH_WATER", 50)
    monkeypatch.setattr(ingest_module, "LOW_WATER", 20)
    monkeypatch.setattr(feed_module, "HOLD_S", 0.1)

    async def script(connection, _number):
        await answered(connection)
        for a in range(1_000_000):
            await connection.send(agg_trade(a))
            await asyncio.sleep(0.005)

    exchange = Exchange(script)
    kafka = KafkaLog(f"127.0.0.1:{free_port()}")  # nobody is there
    async with serve(exchange.serve, "127.0.0.1", 0, process_request=exchange.handshake, ping_interval=None) as server:
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        rest = RestClient(f"http://{address}")  # which has no REST
        running = Ingest(kafka, rest, f"ws://{address}", frozenset({"BTCUSDT"}))
        task = asyncio.create_task(running.run())
        try:
            await until(lambda: all(lane.paused for lane in running.lanes))
            first = list(exchange.connections)
            for connection in first:
                connection.transport.abort()
            await until(lambda: len(exchange.connections) >= 2 * len(first), 40)  # a paused line shows no end
            await until(lambda: any(lane.paused for lane in running.lanes), 20)
            await until(lambda: all(lane.paused for lane in running.lanes if lane.connected))
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await rest.__aexit__()
            with contextlib.suppress(DeliveryFailed):
                kafka.close(0.1)


async def test_an_exchange_on_this_machine_is_reached_without_the_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "ws_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    async with lane_on(forever, "btcusdt@aggTrade") as (_, lane, _heard):
        await until(lambda: lane.active)
