"""Streams of raw payloads: live, from a place in the log, filtered, slow, refused."""

import asyncio
import random
from typing import Any

import grpc
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from socket_parts import SYMBOLS, T0, Raw, Socket, heartbeat, subscription, take, trade, until

from api.socket import tail as tail_module
from flows.partitioning import partition_of
from protos.market_pb2 import Offsets, Position, RawAggTradeRequest, RawMiniTickerRequest

pytestmark = pytest.mark.asyncio(loop_scope="session")

BEGINNING = Position(timestamp_ms=0)


async def live(stream: Any) -> None:
    """Until the server has taken the call: it answers with its headers at once."""
    await asyncio.wait_for(stream.initial_metadata(), 60)


async def begun(socket: Socket, *symbols: str) -> Any:
    """The messages of a stream that is live."""
    stream = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=symbols))
    await live(stream)
    return aiter(stream)


def delete_before(socket: Socket, offset: int) -> None:
    """As retention does, in BTCUSDT's partition."""
    admin = AdminClient({"bootstrap.servers": socket.brokers})
    place = TopicPartition(socket.trades.name, partition_of("BTCUSDT", 4), offset)
    admin.delete_records([place])[place].result(30)


async def refused(stream: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await take(aiter(stream), 1)
    return caught.value.code(), str(caught.value.details())


async def test_live_payloads_come_byte_for_byte_with_their_place(socket: Socket) -> None:
    socket.produce(socket.trades, [trade("BTCUSDT", 1)])
    stream = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=["btcusdt"]))
    await live(stream)
    sent = trade("BTCUSDT", 2, T0 + 5)
    socket.produce(socket.trades, [sent])
    (message,) = await take(aiter(stream), 1)
    assert message.payload == sent.value
    assert (message.symbol, message.event_time_ms, message.receive_time_ms) == ("BTCUSDT", T0 + 5, T0 + 12)
    assert (message.partition, message.offset, message.source) == (partition_of("BTCUSDT", 4), 1, "live")


async def test_minitickers_of_the_whole_market_and_of_one_symbol(socket: Socket) -> None:
    everything = socket.stub.ReceiveRawMiniTicker(RawMiniTickerRequest())
    one = socket.stub.ReceiveRawMiniTicker(RawMiniTickerRequest(symbols=["ethUSDT"]))
    await live(everything)
    await live(one)
    socket.produce(socket.minitickers, [Raw(symbol, symbol.encode(), T0) for symbol in SYMBOLS])
    assert {message.symbol for message in await take(aiter(everything), 5)} == set(SYMBOLS)
    assert [message.payload for message in await take(aiter(one), 1)] == [b"ETHUSDT"]
    assert socket.aggregator.calls == []


async def test_ingests_own_records_are_left_out_and_backfilled_trades_are_marked(socket: Socket) -> None:
    partition = partition_of("BTCUSDT", 4)
    socket.produce(
        socket.trades,
        [
            heartbeat(partition),
            subscription("BTCUSDT"),
            trade("BTCUSDT", 1, source=b"backfill"),
            heartbeat(partition),
            trade("BTCUSDT", 2),
        ],
    )
    stream = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=["btcusdt"], start=BEGINNING))
    found = await take(aiter(stream), 2)
    assert [(message.offset, message.source) for message in found] == [(2, "backfill"), (4, "live")]


async def test_from_the_past_and_on_to_live_without_a_gap_or_a_double(socket: Socket) -> None:
    def trades(numbers: range) -> list[Raw]:
        return [trade(SYMBOLS[n % 5], n, T0 + n) for n in numbers]

    socket.produce(socket.trades, trades(range(3000)))
    stream = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(start=BEGINNING))
    messages = aiter(stream)
    found = await take(messages, 1000)
    for start in range(3000, 6000, 500):
        await asyncio.to_thread(socket.produce, socket.trades, trades(range(start, start + 500)))
        found += await take(messages, 400)
    found += await take(messages, 6000 - len(found))
    by_partition: dict[int, list[int]] = {}
    for message in found:
        by_partition.setdefault(message.partition, []).append(message.offset)
    assert all(offsets == list(range(len(offsets))) for offsets in by_partition.values())
    assert sorted(message.payload for message in found) == sorted(one.value for one in trades(range(6000)))


async def test_a_client_resumes_at_random_places_and_misses_nothing(socket: Socket) -> None:
    rng = random.Random(5)
    socket.produce(socket.trades, [trade(SYMBOLS[n % 5], n, T0 + n) for n in range(2000)])
    after: dict[int, int] = {}
    seen = []
    while len(seen) < 2000:
        start = Position(offsets=Offsets(by_partition={p: after.get(p, 0) for p in range(4)}))
        stream = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(start=start))
        for message in await take(aiter(stream), min(rng.randrange(1, 600), 2000 - len(seen))):
            seen.append(message.payload)
            after[message.partition] = message.offset + 1
        stream.cancel()
    assert len(set(seen)) == 2000


async def test_a_timestamp_starts_at_the_first_record_not_before_it(socket: Socket) -> None:
    socket.produce(socket.trades, [trade("BTCUSDT", n, T0 + 10 * n) for n in range(10)])
    start = Position(timestamp_ms=T0 + 41)
    stream = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=["btcusdt"], start=start))
    assert [message.offset for message in await take(aiter(stream), 5)] == [5, 6, 7, 8, 9]


async def test_a_timestamp_after_the_log_is_live(socket: Socket) -> None:
    socket.produce(socket.trades, [trade("BTCUSDT", 1)])
    stream = socket.stub.ReceiveRawAggTrade(
        RawAggTradeRequest(symbols=["btcusdt"], start=Position(timestamp_ms=T0 + 1_000_000))
    )
    await live(stream)
    socket.produce(socket.trades, [trade("BTCUSDT", 2)])
    assert [message.offset for message in await take(aiter(stream), 1)] == [1]


async def test_one_offset_for_a_symbol(socket: Socket) -> None:
    socket.produce(socket.trades, [trade("BTCUSDT", n) for n in range(10)])
    stream = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=["btcusdt"], start=Position(offset=7)))
    assert [message.offset for message in await take(aiter(stream), 3)] == [7, 8, 9]


async def test_a_replay_of_several_partitions_goes_by_time(socket: Socket) -> None:
    """Not one partition to its end and then the next."""
    socket.produce(socket.trades, [trade(SYMBOLS[n % 5], n, T0 + n) for n in range(40_000)])
    stream = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(start=BEGINNING))
    found = await take(aiter(stream), 20_000)
    assert max(message.event_time_ms for message in found) < T0 + 35_000


@pytest.mark.parametrize("symbols", [["nosuchusdt"], ["btcusdt", ""], ["btcusdt", "x" * 1000], ["BTC/USDT"]])
async def test_an_unknown_symbol_is_an_invalid_argument(socket: Socket, symbols: list[str]) -> None:
    code, details = await refused(socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=symbols)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "the exchange has no" in details
    code, _ = await refused(socket.stub.ReceiveRawMiniTicker(RawMiniTickerRequest(symbols=symbols)))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert socket.aggregator.calls == []


@pytest.mark.parametrize(
    ("start", "code", "says"),
    [
        (Position(), grpc.StatusCode.INVALID_ARGUMENT, "neither"),
        (Position(timestamp_ms=-1), grpc.StatusCode.INVALID_ARGUMENT, "timestamp_ms is -1"),
        (Position(offset=3), grpc.StatusCode.OUT_OF_RANGE, "holds 0 to 2"),
        (Position(offset=-1), grpc.StatusCode.OUT_OF_RANGE, "offset -1"),
        (Position(offsets=Offsets(by_partition={99: 0})), grpc.StatusCode.INVALID_ARGUMENT, "not in 99"),
        (
            Position(offsets=Offsets(by_partition={partition_of("BTCUSDT", 4): 3})),
            grpc.StatusCode.OUT_OF_RANGE,
            "offset 3",
        ),
    ],
)
async def test_a_start_that_cannot_be(socket: Socket, start: Position, code: grpc.StatusCode, says: str) -> None:
    socket.produce(socket.trades, [trade("BTCUSDT", n) for n in range(2)])
    status, details = await refused(
        socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=["btcusdt"], start=start))
    )
    assert status == code
    assert says in details


async def test_one_offset_for_several_partitions_is_refused(socket: Socket) -> None:
    code, details = await refused(socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(start=Position(offset=0))))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert "4 partitions" in details


async def test_a_request_that_is_none(socket: Socket) -> None:
    call = socket.channel.unary_stream("/market.v1.SocketService/ReceiveRawAggTrade")
    assert (await refused(call(b"\xff\xff\xff")))[0] == grpc.StatusCode.INVALID_ARGUMENT
    assert (await refused(call(b"x" * 70_000)))[0] == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_compressed_request_is_told_so(socket: Socket) -> None:
    compressed = grpc.Compression.Gzip
    stream = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=["btcusdt"] * 100), compression=compressed)
    assert (await refused(stream))[0] == grpc.StatusCode.UNIMPLEMENTED


async def test_records_that_nobody_can_read_end_no_stream(socket: Socket) -> None:
    """Live and from the log: they are left out and counted."""
    partition = partition_of("BTCUSDT", 4)
    stream = await begun(socket, "btcusdt")
    poison = [
        (("source", b"\xff"),),
        (("source", b"live"), ("received_ms", b"1" * 30)),
        (("source", b"live"), ("received_ms", b"x")),
    ]
    socket.produce(socket.trades, [Raw("BTCUSDT", b"poison", T0, partition, headers) for headers in poison])
    socket.produce(socket.trades, [trade("BTCUSDT", 1)])
    assert [message.offset for message in await take(stream, 1)] == [3]
    again = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=["btcusdt"], start=BEGINNING))
    assert [message.offset for message in await take(aiter(again), 1)] == [3]


async def test_a_timestamp_that_comes_while_it_is_looked_for_is_not_missed(
    socket: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    (raw, _) = socket.server._logs
    end, arrived = raw._end, []

    async def a_record_just_before(partition: int) -> int:
        if not arrived:
            arrived.append(trade("BTCUSDT", 1, T0 + 50))
            await asyncio.to_thread(socket.produce, socket.trades, arrived)
        return int(await end(partition))

    async with raw.opened():
        monkeypatch.setattr(raw, "_end", a_record_just_before)
        partition = partition_of("BTCUSDT", 4)
        assert await raw.first_offsets([partition], T0 + 50) == {partition: 0}


async def test_a_slow_client_falls_behind_in_the_log_and_the_server_keeps_its_memory(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail_module, "KEEP_BYTES", 100_000)
    async with serving() as socket:
        slow, fast = await begun(socket, "btcusdt"), await begun(socket, "btcusdt")
        socket.produce(socket.trades, [trade("BTCUSDT", 0)])
        await take(slow, 1)
        await take(fast, 1)
        for start in range(1, 60_001, 10_000):
            socket.produce(socket.trades, [trade("BTCUSDT", n, T0 + n) for n in range(start, start + 10_000)])
            await take(fast, 10_000)
        (raw, _) = socket.server._logs
        ring = raw._tail.rings[partition_of("BTCUSDT", 4)]
        assert sum(block.size for block in ring._blocks) <= 100_000
        assert ring.find(1000) is None  # the slow client's place has left the memory
        found = await take(slow, 60_000)
        assert [message.offset for message in found] == list(range(1, 60_001))


async def test_a_client_whose_place_leaves_retention_is_told(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tail_module, "KEEP_BYTES", 100_000)
    async with serving() as socket:
        stream, fast = await begun(socket, "btcusdt"), await begun(socket, "btcusdt")
        socket.produce(socket.trades, [trade("BTCUSDT", 0)])
        await take(stream, 1)
        await take(fast, 1)
        padding = b" " * 1000
        for start in range(1, 20_001, 5000):
            numbers = range(start, start + 5000)
            socket.produce(socket.trades, [Raw("BTCUSDT", b"%d" % n + padding, T0 + n) for n in numbers])
            await take(fast, 5000)
        await asyncio.to_thread(delete_before, socket, 20_000)
        received: list[int] = []

        async def read_on() -> None:
            async for message in stream:
                received.append(message.offset)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.wait_for(read_on(), 60)
        assert received == list(range(1, len(received) + 1))
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "the earliest is 20000" in str(caught.value.details())
        assert len(received) < 20_000


async def test_a_silent_symbol_stays_at_the_end_while_its_neighbours_records_go(serving: Any) -> None:
    """Nothing of its own came and went, so retention has taken nothing from it."""
    neighbour = next(f"X{n}USDT" for n in range(100) if partition_of(f"X{n}USDT", 4) == partition_of("BTCUSDT", 4))
    async with serving() as socket:
        quiet = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=["btcusdt"]))
        await live(quiet)
        probe = await begun(socket)
        socket.produce(socket.trades, [Raw(neighbour, b"x", T0 + n) for n in range(2000)])
        await take(probe, 2000)
        await asyncio.to_thread(delete_before, socket, 2000)
        socket.produce(socket.trades, [trade("BTCUSDT", 1)])
        assert [message.offset for message in await take(aiter(quiet), 1)] == [2000]


async def test_many_clients_share_one_reading(socket: Socket) -> None:
    streams = [socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=[SYMBOLS[n % 5]])) for n in range(50)]
    await asyncio.gather(*map(live, streams))
    socket.produce(socket.trades, [trade(SYMBOLS[n % 5], n, T0 + n) for n in range(500)])
    for stream in streams:
        assert len(await take(aiter(stream), 100)) == 100
    (raw, _) = socket.server._logs
    assert raw._history._idle == []
    assert sum(len(cursors) for cursors in raw._cursors.values()) == 50
    for stream in streams:
        stream.cancel()
    await until(lambda: not any(raw._cursors.values()))
