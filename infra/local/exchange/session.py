"""The life of a stream connection: accepted, kept alive, held to its limits, ended."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass

from aiohttp import WSCloseCode, WSMsgType, web

from infra.local.exchange.control import answer
from infra.local.exchange.limits import ConnectionAttempts
from infra.local.exchange.streams import MAX_STREAMS, Connection, Hub

logger = logging.getLogger(__name__)

_UNITS = {None: False, "MILLISECOND": False, "millisecond": False, "MICROSECOND": True, "microsecond": True}
_COUNTED = (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG)


@dataclass(frozen=True)
class KeepAlive:
    """When the server pings, and when it ends a connection, in seconds."""

    ping_every_s: float = 20.0
    pong_within_s: float = 60.0
    max_age_s: float = 24 * 3600.0


class Sessions:
    """Serves stream connections of both URL forms."""

    def __init__(self, hub: Hub, attempts: ConnectionAttempts, keep_alive: KeepAlive) -> None:
        self._hub, self._attempts, self._keep_alive = hub, attempts, keep_alive
        self._closing: set[asyncio.Task[bool]] = set()

    def routes(self) -> list[web.AbstractRouteDef]:
        """`/ws`, `/ws/<stream>[/<stream>…]` and `/stream[?streams=a/b]`."""
        return [
            web.get("/ws", self._raw),
            web.get("/ws/{streams:.*}", self._raw),
            web.get("/stream", self._combined),
        ]

    async def _raw(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, request.match_info.get("streams", ""), is_combined=False)

    async def _combined(self, request: web.Request) -> web.StreamResponse:
        return await self._serve(request, request.query.get("streams", ""), is_combined=True)

    async def _serve(self, request: web.Request, names: str, is_combined: bool) -> web.StreamResponse:
        loop = asyncio.get_running_loop()
        if not self._attempts.allow(request.remote or "", loop.time()):
            return web.json_response({"code": -1003, "msg": "Too many connection attempts."}, status=429)
        streams = [name for name in names.split("/") if name]
        unit = request.query.get("timeUnit")
        if unit not in _UNITS or len(set(streams)) > MAX_STREAMS:
            return web.Response(status=400)
        socket = web.WebSocketResponse(autoping=False, compress=False, timeout=2.0)
        await socket.prepare(request)
        if request.transport is None:
            return socket
        connection = Connection(socket, request.transport, is_combined, _UNITS[unit])
        self._hub.connections.add(connection)
        self._hub.subscribe(connection, streams)
        try:
            with contextlib.suppress(ConnectionError):
                await self._receive(connection)
        finally:
            self._hub.remove(connection)
        return socket

    async def _receive(self, connection: Connection) -> None:
        loop, socket = asyncio.get_running_loop(), connection.socket
        while not socket.closed:
            message = await socket.receive()
            if message.type in _COUNTED and not connection.messages.allow(loop.time()):
                await socket.close(code=WSCloseCode.POLICY_VIOLATION, message=b"Too many requests")
            elif connection.silent:
                continue
            elif message.type is WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type is WSMsgType.PONG:
                if bytes(message.data) in connection.pings:
                    connection.pings.clear()
            elif message.type is WSMsgType.TEXT:
                await socket.send_str(answer(message.data, connection, self._hub))
            elif message.type is WSMsgType.BINARY:
                await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"Text frames only")

    async def keep_alive(self) -> None:
        """Ping, drop the dead, end the old; for as long as the exchange runs."""
        rules, loop = self._keep_alive, asyncio.get_running_loop()
        step = min(1.0, rules.ping_every_s / 4, rules.pong_within_s / 4, rules.max_age_s / 4)
        while True:
            await asyncio.sleep(step)
            now_s = loop.time()
            for connection in list(self._hub.connections):
                if connection.silent:
                    continue
                if now_s - connection.opened_s >= rules.max_age_s:
                    self.end(connection, b"24 hours are over")
                elif now_s - next(iter(connection.pings.values()), now_s) >= rules.pong_within_s:
                    logger.info("dropped a connection that answered no ping for %.0f s", rules.pong_within_s)
                    connection.transport.abort()
                elif now_s - connection.pinged_s >= rules.ping_every_s:
                    await self._ping(connection, now_s)

    async def _ping(self, connection: Connection, now_s: float) -> None:
        payload = str(int(now_s * 1000)).encode()
        connection.pinged_s = connection.pings[payload] = now_s
        try:
            await connection.socket.ping(payload)
        except ConnectionError:
            connection.transport.abort()

    def end(self, connection: Connection, reason: bytes) -> None:
        """Close a connection in the background, with close code 1001."""
        connection.opened_s = float("inf")  # once is enough
        task = asyncio.create_task(connection.socket.close(code=WSCloseCode.GOING_AWAY, message=reason))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def end_all(self) -> None:
        """Close every connection and wait for it."""
        for connection in list(self._hub.connections):
            self.end(connection, b"server shutdown")
        if self._closing:
            await asyncio.wait(self._closing, timeout=3.0)
