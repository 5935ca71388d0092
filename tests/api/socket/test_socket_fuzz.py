"""Made-up messages to the socket service: an answer of the documented ones, and it goes on."""

import os
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import given, settings
from hypothesis import strategies as st
from socket_parts import SYMBOLS, Socket

from protos import market_pb2

pytestmark = pytest.mark.asyncio(loop_scope="session")
LONG = os.environ.get("API_TESTS") == "long"
# A stream that has begun does not end by itself: the deadline is the test's.
DOCUMENTED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.OUT_OF_RANGE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}
METHODS = {"ReceiveRawAggTrade": market_pb2.RawAggTradeRequest, "ReceiveRawMiniTicker": market_pb2.RawMiniTickerRequest}
INT64 = st.integers(-(2**63), 2**63 - 1)
SYMBOL = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(SYMBOLS)
POSITION = (
    st.none()
    | INT64.map(lambda value: market_pb2.Position(timestamp_ms=value))
    | INT64.map(lambda value: market_pb2.Position(offset=value))
    | st.dictionaries(st.integers(-(2**31), 2**31 - 1), INT64, max_size=3).map(
        lambda found: market_pb2.Position(offsets=market_pb2.Offsets(by_partition=found))
    )
)
REQUESTS = st.tuples(st.sampled_from(sorted(METHODS)), st.lists(SYMBOL, max_size=3), POSITION)
FUZZ = settings(max_examples=500 if LONG else 25, deadline=None, derandomize=not LONG)


def made_up(strategy: st.SearchStrategy[Any]) -> list[Any]:
    found: list[Any] = []

    @FUZZ
    @given(strategy)
    def make(one: Any) -> None:
        found.append(one)

    make()
    return found


async def status(socket: Socket, method: str, message: bytes) -> grpc.StatusCode:
    stream = socket.channel.unary_stream(f"/market.v1.SocketService/{method}")(message, timeout=0.2)
    try:
        async for _ in stream:
            pass
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_fuzzed_requests_and_bytes(socket: Socket) -> None:
    for method, symbols, start in made_up(REQUESTS):
        message = METHODS[method](symbols=symbols, start=start).SerializeToString()
        assert await status(socket, method, message) in DOCUMENTED, (method, symbols, start)
    for number, message in enumerate(made_up(st.binary(max_size=200))):
        assert await status(socket, sorted(METHODS)[number % 2], message) in DOCUMENTED, message
    health = await health_pb2_grpc.HealthStub(socket.channel).Check(health_pb2.HealthCheckRequest(), timeout=20)
    assert health.status == health_pb2.HealthCheckResponse.SERVING
