"""`market.v1.SocketService`: converts, calls the service, sends."""

import asyncio
from collections.abc import Mapping
from typing import Any

from grpclib.const import Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Stream
from prometheus_client import Counter, Gauge

from api.socket.errors import FellBehind, InvalidRequest, NotAvailable, OutOfLog, SocketError
from api.socket.grpc_shell import read_request, send_frames, server_streaming
from api.socket.raw_log import RawLog
from api.socket.service import AtOffset, AtOffsets, AtTime, SocketService, Start
from protos import market_pb2

SERVICE_NAME = market_pb2.DESCRIPTOR.services_by_name["SocketService"].full_name
STATUS: Mapping[type[SocketError], Status] = {
    InvalidRequest: Status.INVALID_ARGUMENT,
    OutOfLog: Status.OUT_OF_RANGE,
    FellBehind: Status.RESOURCE_EXHAUSTED,
    NotAvailable: Status.UNAVAILABLE,
}
STREAMS = Gauge("socket_streams", "Streams that are open", ["method"])
ENDED = Counter("socket_streams_ended", "Streams that we ended, by gRPC status", ["method", "status"])
SENT = Counter("socket_sent_bytes", "Bytes sent", ["method"])


class SocketServicer:
    """Errors become gRPC statuses by one table."""

    def __init__(self, service: SocketService, trades: RawLog, minitickers: RawLog) -> None:
        self._service = service
        self._trades, self._minitickers = trades, minitickers

    async def _receive_raw_agg_trade(self, stream: Stream[Any, Any]) -> None:
        request = await read_request(stream, market_pb2.RawAggTradeRequest)
        await self._stream("ReceiveRawAggTrade", stream, request, self._trades, subscribe=True)

    async def _receive_raw_mini_ticker(self, stream: Stream[Any, Any]) -> None:
        request = await read_request(stream, market_pb2.RawMiniTickerRequest)
        await self._stream("ReceiveRawMiniTicker", stream, request, self._minitickers, subscribe=False)

    async def _stream(self, method: str, stream: Stream[Any, Any], request: Any, log: RawLog, subscribe: bool) -> None:
        sent = SENT.labels(method)
        try:
            with STREAMS.labels(method).track_inprogress():
                async with self._service.open(log, request.symbols, start_of(request), subscribe=subscribe) as batches:
                    await stream.send_initial_metadata()
                    async for frames in batches:
                        await send_frames(stream, frames)
                        sent.inc(len(frames))
                        await asyncio.sleep(0)  # a client that reads fast must not keep the others waiting
        except SocketError as error:
            ENDED.labels(method, STATUS[type(error)].name).inc()
            raise GRPCError(STATUS[type(error)], str(error)) from error

    def __mapping__(self) -> dict[str, Handler]:
        response = market_pb2.RawResponse
        return {
            f"/{SERVICE_NAME}/ReceiveRawAggTrade": server_streaming(
                self._receive_raw_agg_trade, market_pb2.RawAggTradeRequest, response
            ),
            f"/{SERVICE_NAME}/ReceiveRawMiniTicker": server_streaming(
                self._receive_raw_mini_ticker, market_pb2.RawMiniTickerRequest, response
            ),
        }


def start_of(request: Any) -> Start:
    """Where a request begins. Raises InvalidRequest for a start that says nothing."""
    if not request.HasField("start"):
        return None
    match request.start.WhichOneof("at"):
        case "timestamp_ms":
            return AtTime(request.start.timestamp_ms)
        case "offset":
            return AtOffset(request.start.offset)
        case "offsets":
            return AtOffsets(dict(request.start.offsets.by_partition))
    raise InvalidRequest("start: neither timestamp_ms nor offset nor offsets")
