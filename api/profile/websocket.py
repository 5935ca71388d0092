"""The WebSocket (contract section 4): who may connect, until when, and what is said when it ends."""

import asyncio
import json
import logging
import socket
import time
from asyncio import BaseTransport
from typing import cast

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import State

from api.database import DatabaseAway
from api.http import problem
from api.profile.hub import Hub, Viewer
from api.profile.security import Origins, unauthorized, user_of
from api.tokens import AccessTokens, Claims, InvalidToken

PATH = "/api/v1/ws"
AUTH_WITHIN_S = 5.0
CLOSE_WITHIN_S = 5.0
MAX_MESSAGE_BYTES = 4096
GOING_AWAY, NOT_UNDERSTOOD, TRY_AGAIN_LATER, NOT_AUTHENTICATED = 1001, 1008, 1013, 4401
# What a client that does not read can leave with us: the rest waits as one flag.
_WRITE_BUFFER_BYTES = 16 * 1024
_KERNEL_BUFFER_BYTES = 64 * 1024

log = logging.getLogger(__name__)


class Ended(Exception):
    """The connection is to be closed with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class LiveProtocol(WebSocketsSansIOProtocol):
    """uvicorn's, but that a stopping server says 1001, a slow reader's buffers are small, and a dead one is dropped."""

    def connection_made(self, transport: BaseTransport) -> None:
        """Called by uvicorn at the upgrade."""
        super().connection_made(transport)
        cast(asyncio.Transport, transport).set_write_buffer_limits(high=_WRITE_BUFFER_BYTES)
        if found := transport.get_extra_info("socket"):
            found.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KERNEL_BUFFER_BYTES)

    async def run_asgi(self) -> None:
        """Called by uvicorn to serve the connection."""
        app = self.app

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            await app(scope, receive, send)  # type: ignore[arg-type,unused-ignore]
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


class Connections:
    """Serves one WebSocket after its upgrade request, from authentication to its end."""

    def __init__(self, hub: Hub, tokens: AccessTokens, origins: Origins) -> None:
        self._hub = hub
        self._tokens = tokens
        self._origins = origins

    async def serve(self, websocket: WebSocket) -> None:
        """Returns when the connection has ended."""
        header = websocket.headers.get("authorization")
        try:
            if not self._origins.allow(websocket.headers):
                await websocket.send_denial_response(problem(403, "this page may not connect"))
            elif header is None:
                await self._browser(websocket)
            else:
                await self._program(websocket, header)
        except Ended as end:
            await _close(websocket, end)
        except WebSocketDisconnect:
            return

    async def _program(self, websocket: WebSocket, header: str) -> None:
        """A client with an Authorization header: refused before the upgrade, with an HTTP status."""
        try:
            claims = self._claims(header)
        except InvalidToken as error:
            await websocket.send_denial_response(unauthorized(str(error)))
            return
        try:
            async with self._hub.viewer(user_of(claims)) as viewer:
                await websocket.accept()
                await _talk(websocket, viewer, claims)
        except DatabaseAway as error:
            await websocket.send_denial_response(problem(503, str(error), {"Retry-After": str(error.retry_after_s)}))

    async def _browser(self, websocket: WebSocket) -> None:
        """A client whose first message is to authenticate it: browsers can't set headers, nor read a refusal."""
        await websocket.accept()
        claims = await self._first_message(websocket)
        try:
            async with self._hub.viewer(user_of(claims)) as viewer:
                await _talk(websocket, viewer, claims)
        except DatabaseAway as error:
            raise Ended(TRY_AGAIN_LATER, str(error)) from error

    def _claims(self, header: str) -> Claims:
        scheme, _, token = header.partition(" ")
        if scheme.lower() != "bearer":
            raise InvalidToken("an access token is needed: Authorization: Bearer <accessToken>")
        return self._tokens.verify(token.strip())

    async def _first_message(self, websocket: WebSocket) -> Claims:
        """The claims of `{"type":"auth","accessToken":"…"}`. Raises Ended."""
        try:
            async with asyncio.timeout(AUTH_WITHIN_S):
                message = await _receive(websocket)
        except TimeoutError as error:
            raise Ended(NOT_AUTHENTICATED, f"no access token within {AUTH_WITHIN_S:.0f} s") from error
        except Ended as error:  # whatever is wrong with it, it does not authenticate
            raise Ended(NOT_AUTHENTICATED, error.reason) from error
        match message:
            case {"type": "auth", "accessToken": str(token)}:
                try:
                    return self._tokens.verify(token)
                except InvalidToken as error:
                    raise Ended(NOT_AUTHENTICATED, str(error)) from error
        raise Ended(NOT_AUTHENTICATED, 'the first message must be {"type":"auth","accessToken":"…"}')


def websocket_router(connections: Connections) -> APIRouter:
    """`/api/v1/ws`."""
    router = APIRouter()
    router.add_api_websocket_route(PATH, connections.serve)
    return router


async def _talk(websocket: WebSocket, viewer: Viewer, claims: Claims) -> None:
    """Push until the client leaves (WebSocketDisconnect) or has to (Ended)."""
    tasks = [asyncio.create_task(_push(websocket, viewer)), asyncio.create_task(_listen(websocket))]
    try:
        done, _ = await asyncio.wait(
            tasks, timeout=max(0.0, claims.exp - time.time()), return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    if not done:
        raise Ended(NOT_AUTHENTICATED, "the access token has expired")
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _push(websocket: WebSocket, viewer: Viewer) -> None:
    while True:
        push = await viewer.next_push()
        try:
            await websocket.send_text(push)
        except RuntimeError as error:  # uvicorn has closed it by itself: no pong, or a message too long
            raise WebSocketDisconnect(1006) from error


async def _listen(websocket: WebSocket) -> None:
    """Clients have nothing to say, but may; what is not JSON ends the connection."""
    while True:
        await _receive(websocket)


async def _receive(websocket: WebSocket) -> object:
    """The next message. Raises Ended when it is not JSON, WebSocketDisconnect."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    try:
        return json.loads(message["text"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise Ended(NOT_UNDERSTOOD, "messages must be JSON texts") from error


async def _close(websocket: WebSocket, end: Ended) -> None:
    """Say why; a client that reads nothing can't make us wait."""
    try:
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await websocket.close(end.code, end.reason)
    except (TimeoutError, RuntimeError, WebSocketDisconnect):
        log.debug("a client did not take its close frame")
