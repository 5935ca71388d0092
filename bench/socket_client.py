"""Clients of the socket service that only count: `python -m bench.socket_client PORT CLIENTS MESSAGES live|replay`.

grpcio's Python client takes more CPU a message than the server that is measured, so this one walks over the messages'
length prefixes in HTTP/2 frames. Prints `ready` when all streams have begun, then JSON of what came.
"""

import asyncio
import json
import sys
import time

import h2.connection
import h2.events

from protos.market_pb2 import Position, RawAggTradeRequest

METHOD = "/market.v1.SocketService/ReceiveRawAggTrade"
WINDOW = 1 << 20


class Counter(asyncio.Protocol):
    """One stream; `begun` and `done` are set when its headers and its last message have come."""

    def __init__(self, messages: int, request: bytes) -> None:
        self.begun, self.done = asyncio.Event(), asyncio.Event()
        self.first_s = self.last_s = 0.0
        self.count, self._messages, self._request = 0, messages, request
        self._h2 = h2.connection.H2Connection()
        self._left = 0  # bytes of the message that is being received
        self._prefix = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._h2.initiate_connection()
        self._h2.update_settings({4: WINDOW})  # SETTINGS_INITIAL_WINDOW_SIZE
        self._h2.increment_flow_control_window(WINDOW)
        headers = [
            (":method", "POST"), (":scheme", "http"), (":path", METHOD), (":authority", "bench"),
            ("te", "trailers"), ("content-type", "application/grpc"),
        ]  # fmt: skip
        self._h2.send_headers(1, headers)
        self._h2.send_data(1, b"\0" + len(self._request).to_bytes(4, "big") + self._request, end_stream=True)
        self._transport.write(self._h2.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self._h2.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.begun.set()
            elif isinstance(event, h2.events.DataReceived):
                self._count(event.data)
                if not self.done.is_set():
                    self._h2.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, h2.events.TrailersReceived | h2.events.StreamReset | h2.events.ConnectionTerminated):
                sys.exit(f"the stream ended: {event}")
        self._transport.write(self._h2.data_to_send())

    def _count(self, data: bytes) -> None:
        self.first_s = self.first_s or time.perf_counter()
        at, end = 0, len(data)
        while at < end:
            if self._left:
                step = min(self._left, end - at)
                self._left -= step
                at += step
            else:
                need = 5 - len(self._prefix)
                self._prefix += data[at : at + need]
                at += need
                if len(self._prefix) == 5:
                    self._left, self._prefix = int.from_bytes(self._prefix[1:], "big"), b""
                    self.count += 1
        if self.count >= self._messages and not self.done.is_set():
            self.last_s = time.perf_counter()
            self.done.set()


async def main(port: int, clients: int, messages: int, mode: str) -> None:
    request = RawAggTradeRequest(start=Position(timestamp_ms=0) if mode == "replay" else None).SerializeToString()
    loop = asyncio.get_running_loop()
    counters = []
    for _ in range(clients):
        _, counter = await loop.create_connection(lambda: Counter(messages, request), "127.0.0.1", port)
        await counter.begun.wait()
        counters.append(counter)
    print("ready", flush=True)
    for counter in counters:
        await counter.done.wait()
    seconds = max(one.last_s for one in counters) - min(one.first_s for one in counters)
    print(json.dumps({"messages": clients * messages, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
