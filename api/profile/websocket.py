"""The WebSocket (contract section 4): who may connect, until when, and what is said when it ends."""

import asyncio
import json
import logging
import time

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from api.database import DatabaseAway
from api.http import problem
from api.profile.admission import Admission, TooManyConnections
from api.profile.deletion import GONE
from api.profile.errors import NotAuthenticated
from api.profile.hub import Hub
from api.profile.live_protocol import OUTLET, LiveProtocol
from api.profile.security import Origins, unauthorized, user_of
from api.profile.stage import Stage, Theatre
from api.profile.viewers import Viewer
from api.tokens import AccessTokens, Claims, InvalidToken

PATH = "/api/v1/ws"
AUTH_WITHIN_S = 5.0
CLOSE_WITHIN_S = 5.0
WARN_BEFORE_S = 30
MAX_MESSAGE_BYTES = 4096
MESSAGES_A_SECOND, MESSAGES_AT_ONCE = 5, 20  # clients have little to say
NOT_UNDERSTOOD, TRY_AGAIN_LATER, NOT_AUTHENTICATED = 1008, 1013, 4401
RETRY_AFTER = {"Retry-After": "30"}

log = logging.getLogger(__name__)


class Ended(Exception):
    """The connection is to be closed with this code."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Connections:
    """Serves one WebSocket after its upgrade request, from authentication to its end."""

    def __init__(self, hub: Hub, tokens: AccessTokens, origins: Origins, admission: Admission, stage: Stage) -> None:
        self._hub = hub
        self._tokens = tokens
        self._origins = origins
        self._admission = admission
        self._stage = stage

    async def serve(self, websocket: WebSocket) -> None:
        """Returns when the connection has ended."""
        header = websocket.headers.get("authorization")
        try:
            if not self._origins.allow(websocket.headers):
                await websocket.send_denial_response(problem(403, "this page may not connect"))
                return
            with self._admission.address(websocket.client.host if websocket.client else ""):
                if header is None:
                    await self._browser(websocket)
                else:
                    await self._program(websocket, header)
        except TooManyConnections as error:
            await websocket.send_denial_response(problem(429, str(error), RETRY_AFTER))
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
            with self._admission.user(claims.sub):
                async with self._hub.viewer(user_of(claims)) as viewer:
                    await websocket.accept()
                    await _talk(websocket, viewer, claims, self._stage)
        except NotAuthenticated as error:
            await websocket.send_denial_response(unauthorized(str(error)))
        except DatabaseAway as error:
            await websocket.send_denial_response(problem(503, str(error), {"Retry-After": str(error.retry_after_s)}))

    async def _browser(self, websocket: WebSocket) -> None:
        """A client whose first message is to authenticate it: browsers can't set headers, nor read a refusal."""
        await websocket.accept()
        claims = await self._first_message(websocket)
        try:
            with self._admission.user(claims.sub):
                async with self._hub.viewer(user_of(claims)) as viewer:
                    await _talk(websocket, viewer, claims, self._stage)
        except (DatabaseAway, TooManyConnections) as error:
            raise Ended(TRY_AGAIN_LATER, str(error)) from error
        except NotAuthenticated as error:
            raise Ended(NOT_AUTHENTICATED, str(error)) from error

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


async def _talk(websocket: WebSocket, viewer: Viewer, claims: Claims, stage: Stage) -> None:
    """Push until the client leaves (WebSocketDisconnect) or has to (Ended)."""
    outlet: LiveProtocol = websocket.scope[OUTLET]
    theatre = Theatre(stage, outlet, viewer)
    outlet.on_ready = theatre.catch_up
    left_s = claims.exp - time.time()
    gone = False
    warn = asyncio.get_running_loop().call_later(max(0.0, left_s - WARN_BEFORE_S), _warn, outlet, claims.exp)
    try:
        async with asyncio.timeout(left_s) as until:

            def end() -> None:
                nonlocal gone
                gone = True
                if not until.expired():
                    until.reschedule(0)

            viewer.attach(outlet, end)
            await _listen(websocket, theatre)
    except TimeoutError as error:
        raise Ended(NOT_AUTHENTICATED, GONE if gone else "the access token has expired") from error
    finally:
        warn.cancel()
        outlet.on_ready = None
        viewer.detach()
        await theatre.close()


def _warn(outlet: LiveProtocol, expires_s: int) -> None:
    outlet.write_text(b'{"type":"token_expiring","ExpiresAt":%d}' % (expires_s * 1000))


async def _listen(websocket: WebSocket, theatre: Theatre) -> None:
    """Clients may ask for replays, slowly; what is not JSON ends the connection, what is not known is ignored."""
    allowed, last = float(MESSAGES_AT_ONCE), time.monotonic()
    while True:
        message = await _receive(websocket)
        now = time.monotonic()
        allowed, last = min(MESSAGES_AT_ONCE, allowed + (now - last) * MESSAGES_A_SECOND) - 1, now
        if allowed < 0:
            raise Ended(NOT_UNDERSTOOD, f"more than {MESSAGES_A_SECOND} messages a second")
        theatre.hear(message)


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
