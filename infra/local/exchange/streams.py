"""Who listens to what: connections, their subscriptions, and the fan-out of frames.

A payload is serialised once, framed once for each kind of connection (raw or combined, ms or µs), and a connection's
frames of one tick leave in one write.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Iterable
from functools import partial

from aiohttp import web

from infra.local.exchange.limits import SlidingWindow
from infra.local.exchange.trade import Trade
from infra.local.exchange.wire import agg_trade, combined, single_trade, text_frame

MAX_STREAMS = 1024
MAX_MESSAGES_A_SECOND = 5
MAX_BACKLOG_BYTES = 64 * 2**20  # a client that reads slower than this is dropped
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a TCP reset

Encode = Callable[[bool], bytes]


class Connection:
    """One client. What is sent to it while it is silenced is lost, as on a dead line."""

    def __init__(
        self, socket_: web.WebSocketResponse, transport: asyncio.Transport, is_combined: bool, micro: bool
    ) -> None:
        self.socket = socket_
        self.transport = transport
        self.is_combined, self.micro = is_combined, micro
        self.streams: dict[str, None] = {}  # in the order of subscription
        self.opened_s = self.pinged_s = asyncio.get_running_loop().time()
        self.pings: dict[bytes, float] = {}  # payload -> when it was sent, until a pong answers
        self.messages = SlidingWindow(MAX_MESSAGES_A_SECOND, 1.0)
        self.outgoing: list[bytes] = []
        self.silent = False

    @property
    def variant(self) -> tuple[bool, bool]:
        """Connections of the same variant get the same bytes."""
        return self.is_combined, self.micro

    def flush(self) -> None:
        """Hand what is queued to the transport, or drop a client that does not read."""
        if self.transport.is_closing() or self.socket.closed:
            self.outgoing.clear()
        elif self.transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
            self.transport.abort()
        else:
            self.transport.write(b"".join(self.outgoing))
            self.outgoing.clear()

    def silence(self) -> None:
        """Neither send nor read, with the TCP connection left open."""
        self.silent = True
        self.outgoing.clear()
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def unsilence(self) -> None:
        """Go on."""
        if self.silent:
            self.silent = False
            self.pings.clear()
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def reset(self) -> None:
        """Cut the connection with a TCP reset."""
        if raw := self.transport.get_extra_info("socket"):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()


class Hub:
    """All connections and their streams."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.frames_sent = 0
        self._listeners: dict[str, set[Connection]] = {}
        self._names: dict[str, tuple[str, str]] = {}

    def subscribe(self, connection: Connection, streams: list[str]) -> bool:
        """Add streams; False (and nothing done) if they would be more than a connection may have."""
        if len(connection.streams.keys() | set(streams)) > MAX_STREAMS:
            return False
        for stream in streams:
            connection.streams[stream] = None
            self._listeners.setdefault(stream, set()).add(connection)
        return True

    def unsubscribe(self, connection: Connection, streams: list[str]) -> None:
        """Take streams away; those not subscribed are ignored."""
        for stream in streams:
            if stream in connection.streams:
                del connection.streams[stream]
                listeners = self._listeners[stream]
                listeners.discard(connection)
                if not listeners:
                    del self._listeners[stream]

    def remove(self, connection: Connection) -> None:
        """Forget a connection."""
        self.unsubscribe(connection, list(connection.streams))
        self.connections.discard(connection)

    def listeners(self) -> dict[str, int]:
        """How many connections each stream has."""
        return {stream: len(found) for stream, found in self._listeners.items()}

    def is_heard(self, stream: str) -> bool:
        """Whether anybody listens to a stream."""
        return stream in self._listeners

    def send_trade(self, trade: Trade) -> None:
        """Queue a trade for those who listen to its aggTrade and trade streams."""
        names = self._names.get(trade.symbol)
        if names is None:
            lower = trade.symbol.lower()
            names = self._names[trade.symbol] = f"{lower}@aggTrade", f"{lower}@trade"
        agg, single = names
        if agg in self._listeners:
            self.send(agg, partial(agg_trade, trade))
        if single in self._listeners:
            for trade_id, quantity in trade.pieces():
                self.send(single, partial(single_trade, trade, trade_id, quantity))

    def send(self, stream: str, encode: Encode) -> None:
        """Queue a payload for those who listen to a stream; `encode(micro)` makes it."""
        self._queue(stream, self._listeners.get(stream, ()), encode)

    def send_all(self, stream: str, encode: Encode) -> None:
        """Queue a payload for every connection."""
        self._queue(stream, self.connections, encode)

    def _queue(self, stream: str, connections: Iterable[Connection], encode: Encode) -> None:
        frames: dict[tuple[bool, bool], bytes] = {}
        for connection in connections:
            if connection.silent:
                continue
            variant = connection.variant
            frame = frames.get(variant)
            if frame is None:
                payload = encode(connection.micro)
                if connection.is_combined:
                    payload = combined(stream, payload)
                frame = frames[variant] = text_frame(payload)
            connection.outgoing.append(frame)
            self.frames_sent += 1

    def flush(self) -> None:
        """Write out what was queued."""
        for connection in self.connections:
            if connection.outgoing:
                connection.flush()
