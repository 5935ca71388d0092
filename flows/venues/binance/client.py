"""Stream connections to Binance (or the simulated exchange): the socket, and what is subscribed on it."""

import asyncio
import contextlib
import logging
import select
import time
from collections.abc import Callable, Iterable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.http11 import Response

from flows.domain.errors import ExchangeError, ExchangeUnreachable
from flows.venues.binance import protocol
from flows.venues.binance.failures import is_near, refused
from flows.venues.binance.frames import MAX_FRAME, split_frames

log = logging.getLogger(__name__)

PING_EVERY_S = 2.0
PONG_WITHIN_S = 8.0
OPEN_WITHIN_S = 10.0
ANSWER_WITHIN_S = 5.0


class MarketSocket(ClientConnection):
    """A connection whose messages go to `on_frame` in the moment they are read: there is no queue to overtake.

    Whole text frames, which are nearly all, are taken out of the bytes here: the library's own parser is a generator
    that costs ten times as much a frame. It gets every other byte: handshake, control frames, fragments.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Set once the connection is open; nothing is subscribed before.
        self.on_frame: Callable[[bytes], None] = lambda _frame: None
        self.on_alive: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self._fragments: list[bytes] = []
        self._rest = b""  # the beginning of a frame, or of the handshake's response
        self._upgraded = False
        self._all_to_library = False

    def data_received(self, data: bytes) -> None:
        """Called with bytes as they come."""
        self.on_alive()
        if self._rest:
            data, self._rest = self._rest + data, b""
        if not self._upgraded:
            data = self._respond(data)
        if self._all_to_library:
            super().data_received(data)
            return
        pieces, self._rest, self._all_to_library = split_frames(data)
        for is_text, piece in pieces:
            if is_text:
                self.on_frame(piece)
            else:
                super().data_received(piece)

    def _respond(self, data: bytes) -> bytes:
        """Give the library the handshake's response, once it is there; returns what follows it."""
        head, end, rest = data.partition(b"\r\n\r\n")
        if not end:
            self._rest = data
            return b""
        self._upgraded = True
        self._all_to_library = b" 101" not in head[:16]  # refused: a body follows, no frames
        super().data_received(head + end)
        return rest

    def process_event(self, event: Any) -> None:
        """Called by the connection for the handshake's response and then for each frame."""
        if isinstance(event, Response) or event.opcode not in (Opcode.TEXT, Opcode.CONT, Opcode.BINARY):
            super().process_event(event)
            return
        assert isinstance(event, Frame)
        self._fragments.append(bytes(event.data))  # proxies may cut a message; a binary one is a bad frame
        if event.fin:
            message, self._fragments = b"".join(self._fragments), []
            self.on_frame(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called once, whoever ended the connection."""
        super().connection_lost(exc)
        self.on_lost()

    @property
    def idle(self) -> bool:
        """Whether the socket has nothing to read."""
        sock = self.transport.get_extra_info("socket")
        if sock is None or sock.fileno() < 0:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), select.POLLIN)
        return not poll.poll(0)


async def open_socket(ws_url: str) -> MarketSocket:
    """A connection for combined streams, none subscribed yet. Raises ExchangeError."""
    url = f"{ws_url.rstrip('/')}/stream"
    try:
        opened = await connect(
            url,
            create_connection=MarketSocket,
            compression=None,
            ping_interval=PING_EVERY_S,
            ping_timeout=PONG_WITHIN_S,
            open_timeout=OPEN_WITHIN_S,
            close_timeout=2,
            proxy=None if is_near(url) else True,
            max_size=MAX_FRAME,
        )
    except InvalidStatus as error:
        raise refused(error.response.status_code, error.response.headers, url) from error
    except (OSError, TimeoutError, InvalidHandshake, InvalidURI) as error:
        raise ExchangeUnreachable(f"can't reach the exchange at {url}: {error or type(error).__name__}") from error
    assert isinstance(opened, MarketSocket)
    return opened


class StreamSet:
    """The streams of one connection: brings what is subscribed in line with what is wanted, within the limits."""

    def __init__(self, socket: MarketSocket) -> None:
        self._socket = socket
        self._asked: dict[int, tuple[str, tuple[str, ...]]] = {}
        self._next_id = 1
        self._next_at = 0.0
        self.active: set[str] = set()  # accepted by the exchange
        self._sent: set[str] = set()
        self._settled = asyncio.Event()  # every message is answered, or no answer can come
        self._settled.set()

    def lost(self) -> None:
        """The connection is gone: nobody needs to wait for an answer."""
        self._settled.set()

    async def settled(self) -> None:
        """Wait until what was asked is answered, for a while at most: the log's ids show what was missed."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._settled.wait()

    async def become(self, wanted: Iterable[str]) -> None:
        """Send what is needed; `active` follows when the exchange has answered. Raises ExchangeError."""
        wanted = set(wanted)
        if len(wanted) > protocol.MAX_STREAMS:
            raise ExchangeError(f"{len(wanted)} streams on one connection, the exchange allows {protocol.MAX_STREAMS}")
        for method, streams in (("UNSUBSCRIBE", self._sent - wanted), ("SUBSCRIBE", wanted - self._sent)):
            ordered = sorted(streams)
            for at in range(0, len(ordered), protocol.STREAMS_A_MESSAGE):
                await self._send(method, tuple(ordered[at : at + protocol.STREAMS_A_MESSAGE]))

    async def _send(self, method: str, streams: tuple[str, ...]) -> None:
        await asyncio.sleep(max(0.0, self._next_at - time.monotonic()))
        self._next_at = time.monotonic() + protocol.CONTROL_PAUSE_S
        number, self._next_id = self._next_id, self._next_id + 1
        self._asked[number] = method, streams
        self._settled.clear()
        self._sent = self._sent | set(streams) if method == "SUBSCRIBE" else self._sent - set(streams)
        try:
            await self._socket.send(protocol.control(method, streams, number))
        except ConnectionClosed as error:
            raise ExchangeUnreachable(f"the connection was lost ({error})") from error

    def answered(self, answer: protocol.Answer) -> str | None:
        """Take an answer in; gives the error where the exchange refused."""
        method, streams = self._asked.pop(answer.id or 0, ("", ()))
        if not self._asked:
            self._settled.set()
        if answer.error is not None:
            self._sent -= set(streams)
            return f"{method} {', '.join(streams[:3])}{'…' if len(streams) > 3 else ''}: {answer.error}"
        self.active = self.active | set(streams) if method == "SUBSCRIBE" else self.active - set(streams)
        return None
