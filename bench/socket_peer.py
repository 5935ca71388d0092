"""The peer: the same raw log over grpcio, a write a message: `python -m bench.socket_peer BROKERS PORT`.

Messages are serialised already, as in the service; what differs is how they get into the connection.
"""

import contextlib
import sys
from typing import Any

import grpc
import uvloop

from api.socket.raw_log import RawLog
from api.socket.service import SocketService
from api.socket.servicer import SERVICE_NAME, start_of
from flows.channels import raw_aggtrade
from protos.market_pb2 import RawAggTradeRequest


class NoLeases:
    """The benchmark asks for whatever is in the log, which subscribes nothing."""

    def held(self, symbols: Any) -> Any:
        return contextlib.nullcontext()


async def main(brokers: str, port: int) -> None:
    log = RawLog(brokers, raw_aggtrade(1 << 40))
    service = SocketService(None, NoLeases())  # type: ignore[arg-type]

    async def stream(request: RawAggTradeRequest, context: Any) -> None:
        async with service.open(log, request.symbols, start_of(request), subscribe=False) as batches:
            await context.send_initial_metadata(())
            async for batch in batches:
                at = 0
                while at < len(batch):
                    end = at + 5 + int.from_bytes(batch[at + 1 : at + 5], "big")
                    await context.write(batch[at + 5 : end])
                    at = end

    server = grpc.aio.server()
    method = grpc.unary_stream_rpc_method_handler(stream, RawAggTradeRequest.FromString, None)
    handler = grpc.method_handlers_generic_handler(SERVICE_NAME, {"ReceiveRawAggTrade": method})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
