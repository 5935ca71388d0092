"""Asking for a symbol subscribes it for as long as the stream lives."""

import asyncio
from typing import Any

import grpc
import pytest
from socket_parts import T0, Socket, take, trade, until

from api.socket import leases as leases_module
from protos.market_pb2 import Position, RawAggTradeRequest

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_stream_subscribes_its_symbols_and_gives_them_back(socket: Socket) -> None:
    one = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=["btcusdt", "ETHUSDT"]))
    await until(lambda: socket.aggregator.holds("BTCUSDT") and socket.aggregator.holds("ETHUSDT"))
    other = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=["btcusdt"]))
    await asyncio.wait_for(other.initial_metadata(), 60)
    one.cancel()
    await until(lambda: not socket.aggregator.holds("ETHUSDT"))
    assert socket.aggregator.holds("BTCUSDT")
    other.cancel()
    await until(lambda: not socket.aggregator.holds("BTCUSDT"))
    gets = [call for call in socket.aggregator.calls if call[0] == "GET"]
    assert sorted(gets) == [("GET", "BTCUSDT", "60s"), ("GET", "ETHUSDT", "60s")]


async def test_a_lease_is_renewed_while_the_stream_lives(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "RENEW_EVERY_S", 0.2)
    async with serving() as socket:
        stream = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=["btcusdt"]))
        await until(lambda: socket.aggregator.calls.count(("GET", "BTCUSDT", "60s")) >= 3)
        assert not stream.done()


async def test_streams_go_on_while_the_aggregator_is_away_and_it_is_told_later(socket: Socket) -> None:
    socket.aggregator.up = False
    socket.produce(socket.trades, [trade("BTCUSDT", 1, T0)])
    request = RawAggTradeRequest(symbols=["btcusdt"], start=Position(offset=0))
    stream = aiter(socket.stub.ReceiveRawAggTrade(request))
    await take(stream, 1)
    await until(lambda: len(socket.aggregator.calls) > 1)
    assert not socket.aggregator.holds("BTCUSDT")
    socket.aggregator.up = True
    await until(lambda: socket.aggregator.holds("BTCUSDT"))


async def test_no_symbols_means_no_subscription(socket: Socket) -> None:
    stream = socket.stub.ReceiveRawAggTrade(RawAggTradeRequest())
    await asyncio.wait_for(stream.initial_metadata(), 60)
    assert socket.aggregator.calls == []


async def test_a_graceful_stop_gives_the_leases_back_and_tells_the_clients(serving: Any) -> None:
    async with serving() as socket:
        stream = aiter(socket.stub.ReceiveRawAggTrade(RawAggTradeRequest(symbols=["btcusdt"])))
        await until(lambda: socket.aggregator.holds("BTCUSDT"))
        waiting = asyncio.ensure_future(take(stream, 1))
        await socket.server.stop()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await waiting
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        assert "stopping" in str(caught.value.details())
        assert not socket.aggregator.holds("BTCUSDT")
