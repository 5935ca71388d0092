"""uvicorn's WebSocket connection, made into an `Outlet`: pushes go straight to the transport.

An ASGI `send` is five coroutines deep and wakes a task for each message; with thousands of clients a second that is
most of what a push costs. Everything else (handshake, messages from clients, pings, closing) stays uvicorn's.
"""

import asyncio
import socket
from asyncio import BaseTransport
from collections.abc import Callable
from typing import cast

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.protocol import State

OUTLET = "outlet"  # the connection itself, in its ASGI scope
CLOSE_WITHIN_S = 5.0
GOING_AWAY = 1001
# What a client that does not read can leave with us: the rest waits as one flag.
_WRITE_BUFFER_BYTES = 16 * 1024
_KERNEL_BUFFER_BYTES = 64 * 1024
# What a client may send, frames of control and pieces of messages too: more than its messages (`websocket`) come to.
BYTES_A_SECOND, BYTES_AT_ONCE = 8 * 1024, 96 * 1024
POLICY_VIOLATION = 1008
_TEXT = 0x81  # RFC 6455, 5.2: the only frame of a message, text, not masked


class LiveProtocol(WebSocketsSansIOProtocol):
    """Says 1001 when the server stops, keeps a slow reader's buffers small, and drops a dead one."""

    ready = True
    _may_send = float(BYTES_AT_ONCE)
    _received_at = 0.0
    on_ready: Callable[[], None] | None = None  # called when a client has read what it was behind with

    def connection_made(self, transport: BaseTransport) -> None:
        """Called by uvicorn at the upgrade."""
        super().connection_made(transport)
        cast(asyncio.Transport, transport).set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        if found := transport.get_extra_info("socket"):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER_BYTES)

    def write_text(self, text: bytes) -> None:
        """Send a message now, whether or not the client reads; on a connection that is closing it is lost."""
        if self.close_sent or self.transport.is_closing():
            return
        self.transport.write(_frame_head(len(text)) + text)

    def data_received(self, data: bytes) -> None:
        """Called by the transport."""
        now = self.loop.time()
        earned = (now - self._received_at) * BYTES_A_SECOND
        self._may_send, self._received_at = min(BYTES_AT_ONCE, self._may_send + earned) - len(data), now
        if self._may_send < 0:
            self._refuse_flood()
        else:
            super().data_received(data)

    def handle_cont(self, event: Frame) -> None:
        """Called for each further piece of a message; empty ones count for no limit, so none is kept."""
        if event.data or event.fin:
            super().handle_cont(event)

    def handle_ping(self) -> None:
        """Called for each ping; the answer of a client that does not read would stay with us."""
        if self.ready:
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def pause_writing(self) -> None:
        """Called by the transport when its buffer is full."""
        super().pause_writing()
        self.ready = False

    def resume_writing(self) -> None:
        """Called by the transport when its buffer is nearly empty."""
        super().resume_writing()
        self.ready = True
        if self.on_ready:
            self.on_ready()

    async def run_asgi(self) -> None:
        """Called by uvicorn to serve the connection."""
        app = self.app

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            await app({**scope, OUTLET: self}, receive, send)  # type: ignore[arg-type,unused-ignore]
            # A refusal is an answer too: uvicorn would log each as an error.
            self.handshake_complete = self.handshake_complete or self.close_sent

        self.app = served  # type: ignore[assignment,unused-ignore]
        await super().run_asgi()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        """Called when we are done with the connection."""
        super().on_task_complete(task)
        self._abort_soon()

    def keepalive_timeout(self) -> None:
        """Called when no pong came."""
        super().keepalive_timeout()
        self._abort_soon()

    def _refuse_flood(self) -> None:
        if self.transport.is_closing():
            return
        if self.handshake_complete and not self.close_sent and self.conn.state is State.OPEN:
            self.stop_keepalive()
            self.conn.fail(POLICY_VIOLATION, f"more than {BYTES_A_SECOND} bytes a second")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.close_sent = True
            self.queue.put_nowait({"type": "websocket.disconnect", "code": POLICY_VIOLATION})
        self.transport.close()
        self._abort_soon()

    def _abort_soon(self) -> None:
        # A closed transport still waits for its peer to read what is left: for ever, if it does not.
        self.loop.call_later(CLOSE_WITHIN_S, self.transport.abort)

    def shutdown(self) -> None:
        """Called by uvicorn when it stops."""
        if self.handshake_complete and not self.close_sent and self.conn.state is State.OPEN:
            self.stop_keepalive()
            self.queue.put_nowait({"type": "websocket.disconnect", "code": GOING_AWAY})
            self.conn.send_close(GOING_AWAY, "the server is stopping")
            self.transport.write(b"".join(self.conn.data_to_send()))
            self.transport.close()
        else:
            super().shutdown()


def _frame_head(length: int) -> bytes:
    if length < 126:
        return bytes((_TEXT, length))
    if length < 65536:
        return bytes((_TEXT, 126, length >> 8, length & 255))
    return bytes((_TEXT, 127)) + length.to_bytes(8)
