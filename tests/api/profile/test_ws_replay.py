"""Replays on the WebSocket: real connections, recorded seconds in a real ClickHouse engine."""

import asyncio
import json
import secrets
import socket as sockets
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import clickhouse_connect
import pytest
from profile_parts import PASSWORD, Bff, NewUser, User, now_second, publish, push, serves, watching, workers_of
from websockets.asyncio.client import ClientConnection

from flows.clickhouse_etl import SECOND_STATS
from flows.connectors.clickhouse_table import ClickHouseTable, Server
from flows.domain.second_stat import SecondStat
from flows.domain.times import iso
from infra.clickhouse.migrate import migrate
from infra.local.part import free_port
from infra.settings import split_address
from tracker.portfolio_client import PortfolioClient, Refused
from tracker.portfolio_view import line

Message = dict[str, Any]
HOUR_MS = 3_600_000
START = (int(time.time()) // 3600 - 24) * HOUR_MS
LONG = 2500  # seconds


@pytest.fixture(scope="module")
def recorded(clickhouse: str) -> str:
    """A database with seconds of BTC (0, 1, 3), of ETH (-10, 1 revised) and many of SOL, from START on."""
    host, port = split_address(clickhouse, 8123)
    database = f"replay_{secrets.token_hex(4)}"
    client = clickhouse_connect.get_client(host=host, port=port, password="postgres", compress=False)
    migrate(client, database, "market_tickers")
    client.close()
    stats = [
        stat("BTCUSDT", 0, "10"), stat("BTCUSDT", 1, "11.12345678"), stat("BTCUSDT", 3, "12"),
        stat("ETHUSDT", -10, "0.5"), stat("ETHUSDT", 1, "0.6"), stat("ETHUSDT", 1, "0.7", 1),
        *(stat("SOLUSDT", second, str(second + 1)) for second in range(LONG)),
    ]  # fmt: skip
    store(clickhouse, database, stats)
    return database


def store(clickhouse: str, database: str, stats: list[SecondStat]) -> None:
    """As the ETL does."""
    lane = SECOND_STATS
    server = Server(*split_address(clickhouse, 8123), "default", "postgres")
    table = ClickHouseTable(server, database, lane.table, lane.columns, lane.key, replacing=True)
    data = [[getattr(one, name) for one in stats] for name in SecondStat._fields]
    table.insert(table.insert_of(data))


def stat(symbol: str, second: int, close: str, revision: int = 0) -> SecondStat:
    whole, _, fraction = close.partition(".")
    price = int(whole) * 10**8 + int(fraction.ljust(8, "0") or 0)
    zeros = dict.fromkeys(SecondStat._fields, 1)
    prices = dict.fromkeys(("open", "high", "low", "close"), price)
    at = {"symbol": symbol, "timestamp": START + second * 1000, "revision": revision}
    return SecondStat(**{**zeros, **prices, **at})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def bff(start_bff: Any, clickhouse: str, recorded: str) -> Iterator[Bff]:
    with start_bff(
        CLICKHOUSE_ADDR=clickhouse, CLICKHOUSE_DATABASE=recorded, REPLAY_SETTLE="1ms", WS_REPLAYS="3"
    ) as running:
        yield running


async def say(socket: ClientConnection, kind: str, **fields: object) -> None:
    await socket.send(json.dumps({"type": kind, **fields}))


async def replay(socket: ClientConnection, first: float, last: float, speed: object = "max") -> None:
    """Ask for the seconds [first, last) after START."""
    await say(socket, "replay", **{"from": int(START + first * 1000), "to": int(START + last * 1000), "speed": speed})


async def until_end(socket: ClientConnection) -> tuple[list[Message], Message]:
    """The pushes of a replay, and the message after them."""
    pushes: list[Message] = []
    async with asyncio.timeout(30):
        while True:
            message = json.loads(await socket.recv())
            if "type" in message:
                return pushes, message
            if "Replay" in message:
                pushes.append(message)


@asynccontextmanager
async def live(bff: Bff, user: User, **options: Any) -> AsyncIterator[ClientConnection]:
    """A connection that has had its first push."""
    async with watching(bff, user, **options) as socket:
        assert "Replay" not in await push(socket)
        yield socket


def seconds(pushes: list[Message]) -> list[tuple[int, str, list[str]]]:
    return [((one["AsOf"] - START) // 1000, one["TotalValue"], one["Stale"]) for one in pushes]


async def metric(user: User, name: str) -> float:
    """Of the service that this user has a client for."""
    text = (await user.client.get("/metrics")).text
    return float(next(words.split()[1] for words in text.splitlines() if words.startswith(f"{name} ")))


async def test_the_recorded_seconds_with_exact_sums_then_live_again(bff: Bff, new_user: NewUser) -> None:
    user = await new_user(btcusdt="1.000000000000000001", ethusdt="2", ltcusdt="5")
    async with live(bff, user) as socket:
        await replay(socket, 0, 3)
        pushes, ended = await until_end(socket)
        after = await push(socket)
    assert seconds(pushes) == [
        (-9, "1", []),  # what was known before
        (1, "11.00000000000000001", []),
        (2, "12.52345678000000001112345678", []),
    ]
    assert [one["Sequence"] for one in [*pushes, after]] == [2, 3, 4, 5]
    assert pushes[2] == {
        "UserID": user.id,
        "UserName": user.name,
        "TotalValue": "12.52345678000000001112345678",
        "Coins": [
            {"Symbol": "btcusdt", "Quantity": "1.000000000000000001", "Price": "11.12345678",
             "Total": "11.12345678000000001112345678"},
            {"Symbol": "ethusdt", "Quantity": "2", "Price": "0.7", "Total": "1.4"},
            {"Symbol": "ltcusdt", "Quantity": "5", "Price": None, "Total": None},
        ],
        "Sequence": 4,
        "AsOf": START + 2000,
        "Stale": [],
        "Replay": True,
    }  # fmt: skip
    assert ended == {"type": "replay_ended", "Reason": "end", "From": START, "To": START + 3000, "Pushes": 3}
    assert "Replay" not in after
    assert after["TotalValue"] == "0"


async def test_prices_turn_stale_by_the_recorded_clock(bff: Bff, new_user: NewUser) -> None:
    async with live(bff, await new_user(btcusdt="1", ethusdt="1")) as socket:
        await replay(socket, -100, 70)
        pushes, ended = await until_end(socket)
    assert seconds(pushes) == [
        (-9, "0.5", []),
        (1, "10.5", []),
        (2, "11.82345678", []),
        (4, "12.7", []),
        (4, "12.7", ["ethusdt"]),
        (4, "12.7", ["btcusdt", "ethusdt"]),
    ]
    assert ended["From"] == START - 10_000  # where there is something


async def test_speed_pause_resume_and_stop(bff: Bff, new_user: NewUser) -> None:
    async with live(bff, await new_user(solusdt="1")) as socket:
        began = time.monotonic()
        await replay(socket, 0, 40, speed=50)
        pushes, ended = await until_end(socket)
        took = time.monotonic() - began
        assert [one["TotalValue"] for one in pushes] == [str(number + 1) for number in range(40)]
        assert ended["Reason"] == "end"
        assert took > 0.75  # 39 seconds at 50 a second
        await push(socket)

        await replay(socket, 0, LONG, speed=50)
        await push(socket)
        await say(socket, "pause")
        await say(socket, "replay")  # its answer says that what was pushed before the pause is here
        before, error = await until_end(socket)
        assert "stop it first" in error["Message"]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await socket.recv()
        await say(socket, "resume")
        assert (await push(socket))["AsOf"] == START + (len(before) + 2) * 1000
        await say(socket, "stop")
        pushes, ended = await until_end(socket)
        assert ended["Reason"] == "stopped"
        assert ended["To"] == START + ended["Pushes"] * 1000
        assert ended["Pushes"] == len(before) + len(pushes) + 2
        assert "Replay" not in await push(socket)
        await replay(socket, 1, 2)  # and another
        assert len((await until_end(socket))[0]) == 2


async def test_a_paused_replay_can_be_stopped_and_left(bff: Bff, new_user: NewUser) -> None:
    user = await new_user(solusdt="1")
    for _ in range(3):  # more than there is place for, if one were kept
        async with live(bff, user) as socket:
            await replay(socket, 1, LONG, speed=1)
            await push(socket)
            await say(socket, "pause")
    for _ in range(3):
        async with live(bff, user) as socket:
            await replay(socket, 1, LONG, speed=1)
    async with live(bff, user) as socket:
        await replay(socket, 1, LONG, speed=1)
        await say(socket, "pause")
        await say(socket, "stop")
        assert (await until_end(socket))[1]["Reason"] == "stopped"


async def test_what_can_not_be_played_is_said_and_the_connection_goes_on(bff: Bff, new_user: NewUser) -> None:
    user = await new_user(btcusdt="1", ethusdt="1")
    async with live(bff, user) as socket, live(bff, await new_user()) as without, live(bff, user) as two:
        for words, said in (
            ({"from": "soon", "to": START}, "neither an ISO time nor epoch ms"),
            ({"from": START}, '"to" must be'),
            ({"from": START, "to": START + 999}, "the range is empty"),
            ({"from": START, "to": START + 1000, "speed": "fast"}, '"speed" must be'),
        ):
            await say(socket, "replay", **words)
            assert said in (await until_end(socket))[1]["Message"]
        await say(two, "pause")
        assert "no replay" in (await until_end(two))[1]["Message"]
        await replay(two, -3000, -2000)
        error = (await until_end(two))[1]
        assert "earliest available is " in error["Message"]
        assert (error["type"], error["Earliest"]) == ("error", START - 10_000)
        assert "Replay" not in await push(two)
        await replay(without, 0, 3)
        assert "no coins" in (await until_end(without))[1]["Message"]
        await replay(socket, 0, 3)
        assert len((await until_end(socket))[0]) == 3


async def test_users_and_live_connections_do_not_see_it(bff: Bff, new_user: NewUser) -> None:
    one, other, second = await new_user(btcusdt="1"), await new_user(btcusdt="3"), now_second() + 5000
    async with live(bff, one) as mine, live(bff, one) as beside, live(bff, other) as theirs:
        publish(bff.redis, "btcusdt", "1000.00000000", second)
        for socket in (mine, beside, theirs):
            await push(socket, lambda message: message["AsOf"] == second + 1000)
        await replay(mine, 0, 2, speed=4)
        await replay(theirs, 0, 2, speed=4)
        await push(mine)
        publish(bff.redis, "btcusdt", "1001.00000000", second + 1000)
        async with asyncio.timeout(10):
            assert json.loads(await beside.recv())["TotalValue"] == "1001"
        (pushes, _), (their_pushes, _) = await until_end(mine), await until_end(theirs)
        assert seconds(pushes) == [(2, "11.12345678", [])]
        assert seconds(their_pushes) == [(1, "30", []), (2, "33.37037034", [])]
        assert {message["UserID"] for message in their_pushes} == {other.id}
        assert (await push(mine))["TotalValue"] == "1001"  # what it was not told meanwhile
        publish(bff.redis, "btcusdt", "1002.00000000", second + 2000)
        numbers = []
        for socket in (mine, beside):
            async with asyncio.timeout(10):
                numbers.append(json.loads(await socket.recv())["Sequence"])
        assert numbers == [6, 4]


async def test_a_slow_reader_slows_its_own_replay_only_and_misses_nothing(bff: Bff, new_user: NewUser) -> None:
    length = 1000  # several times what buffers hold
    user = await new_user(solusdt="1", btcusdt="1")
    with sockets.socket() as narrow:
        narrow.setsockopt(sockets.SOL_SOCKET, sockets.SO_RCVBUF, 4096)
        host, _, port = bff.url.removeprefix("http://").rpartition(":")
        narrow.connect((host, int(port)))
        narrow.setblocking(False)
        async with live(bff, user, max_queue=1, sock=narrow) as slow, live(bff, user) as fast:
            await replay(slow, 0, length)
            await push(slow)
            await replay(fast, 0, length)
            assert len((await until_end(fast))[0]) == length
            assert await metric(user, "bff_replays") == 1  # the slow one's, which waits for its reader
            pushes, ended = await until_end(slow)
    assert [one["AsOf"] for one in pushes] == [START + (number + 2) * 1000 for number in range(length - 1)]
    assert (ended["Reason"], ended["Pushes"]) == ("end", length)


async def test_there_is_a_limit_per_user_and_in_all(bff: Bff, new_user: NewUser) -> None:
    user, other = await new_user(solusdt="1"), await new_user(solusdt="1")
    async with live(bff, user) as one, live(bff, user) as two, live(bff, user) as three, live(bff, other) as four:
        for socket in (one, two):
            await replay(socket, 1, LONG, speed=1)
            await push(socket)
        await replay(three, 0, 1)
        assert "2 replays already" in (await until_end(three))[1]["Message"]
        await replay(four, 1, LONG, speed=1)
        await push(four)
        async with live(bff, await new_user(solusdt="1")) as five:
            await replay(five, 0, 1)
            assert "too many replays" in (await until_end(five))[1]["Message"]
            await say(one, "stop")
            await until_end(one)
            await replay(five, 0, 1)
            assert (await until_end(five))[1]["Reason"] == "end"


async def test_two_workers_replay_while_every_live_tick_comes(
    start_bff: Any, new_user: NewUser, clickhouse: str, recorded: str
) -> None:
    many = start_bff(CLICKHOUSE_ADDR=clickhouse, CLICKHOUSE_DATABASE=recorded, REPLAY_SETTLE="1ms", HTTP_WORKERS="2")
    async with AsyncExitStack() as open_until_the_end:
        own = open_until_the_end.enter_context(many)
        watcher, second = await new_user(own, avaxusdt="1"), now_second()
        watchers: list[ClientConnection] = []
        players: list[ClientConnection] = []
        workers = workers_of(own)
        assert len(workers) == 2
        while not all(serves(worker, watchers) and serves(worker, players) for worker in workers):
            assert len(players) < 30
            watchers.append(await open_until_the_end.enter_async_context(live(own, watcher)))
            player = await new_user(own, solusdt="1")
            players.append(await open_until_the_end.enter_async_context(live(own, player)))
        playing = [asyncio.create_task(replayed(socket)) for socket in players]
        ticks = 0
        while not all(task.done() for task in playing):
            ticks += 1
            publish(own.redis, "avaxusdt", f"{ticks}.00000000", second + ticks * 1000)
            for socket in watchers:  # each the very next, none left out
                assert (await push(socket))["TotalValue"] == str(ticks)
        assert ticks > 1
        for pushes, ended in await asyncio.gather(*playing):
            assert [one["TotalValue"] for one in pushes] == [str(number + 1) for number in range(LONG)]
            assert (ended["Reason"], ended["Pushes"]) == ("end", LONG)


async def replayed(socket: ClientConnection) -> tuple[list[Message], Message]:
    await replay(socket, 0, LONG)
    return await until_end(socket)


async def test_without_clickhouse_it_says_so_and_live_goes_on(start_bff: Any, new_user: NewUser) -> None:
    with start_bff(CLICKHOUSE_ADDR=f"127.0.0.1:{free_port()}") as own:
        user = await new_user(own, btcusdt="1")
        async with live(own, user) as socket:
            await replay(socket, 0, 1)
            assert "can't be read now" in (await until_end(socket))[1]["Message"]
            await push(socket)
            assert (await user.add("btcusdt", "1")).status_code == 200
            assert (await push(socket))["Coins"][0]["Quantity"] == "2"


async def test_what_is_not_stored_yet_is_waited_for(
    start_bff: Any, new_user: NewUser, clickhouse: str, recorded: str
) -> None:
    with start_bff(CLICKHOUSE_ADDR=clickhouse, CLICKHOUSE_DATABASE=recorded, REPLAY_SETTLE="3s") as own:
        user = await new_user(own, xrpusdt="2")
        async with live(own, user) as socket:
            second = (now_second() - START) // 1000 - 1
            await replay(socket, second, second + 1)
            async with asyncio.timeout(10):
                while not await metric(user, "bff_replay_query_seconds_count"):  # it has looked, and found nothing
                    pass
            await asyncio.to_thread(store, clickhouse, recorded, [stat("XRPUSDT", second, "1.5")])
            assert seconds((await until_end(socket))[0]) == [(second + 1, "3", [])]


async def test_the_terminal_client(bff: Bff, registered: str) -> None:
    client = PortfolioClient(bff.url)
    try:
        await client.log_in(registered, PASSWORD)
        await client.hold_at_least({"solusdt": "2"})
        events = [event async for event in client.replay(str(START), iso(START + 3000), "max")]
        assert [event["TotalValue"] for event in events] == ["2", "4", "6"]
        assert f"total 6 USDT  solusdt 3  replay of {iso(START + 3000)}" in line(events[-1])
        with pytest.raises(Refused, match="the range is empty"):
            await anext(client.replay(str(START), str(START), 1.0))
    finally:
        await client.close()
