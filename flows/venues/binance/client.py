"""Connections to Binance (or the simulated exchange): one WebSocket, and the few REST calls ingest needs."""

import asyncio
import ipaddress
import logging
import random
import select
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI
from websockets.frames import Frame, Opcode
from websockets.http11 import Response

from flows.domain.errors import ExchangeBlocked, ExchangeError, ExchangeUnreachable, RateLimited
from flows.venues.binance import protocol

log = logging.getLogger(__name__)

PING_EVERY_S = 2.0
PONG_WITHIN_S = 8.0
OPEN_WITHIN_S = 10.0
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 30.0
BLOCKED_PAUSE_S = 300.0
SHORTEST_LIMIT_S = 1.0


def pause_before_retry(error: ExchangeError, attempt: int) -> float:
    """Seconds to wait after a failure: all are worth another try, only not equally soon.

    Exponential with full jitter, so that connections which died together do not come back together; a block is
    asked about every few minutes, a rate limit when the exchange said.
    """
    if isinstance(error, RateLimited):
        return max(SHORTEST_LIMIT_S, error.retry_after_s)
    if isinstance(error, ExchangeBlocked):
        return BLOCKED_PAUSE_S
    longest_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(attempt, 30))
    return max(0.1, random.uniform(0, longest_s))  # noqa: S311


def _refused(status: int, headers: Any, what: str) -> ExchangeError:
    if status in (403, 451):
        return ExchangeBlocked(
            f"{what}: HTTP {status}: the exchange does not serve this address (a geo-block or a ban); "
            "try from another network, or run with EXCHANGE=simulated"
        )
    if status in (418, 429):
        wait = headers.get("Retry-After", "")
        return RateLimited(f"{what}: HTTP {status}, too many requests", float(wait) if wait.isdigit() else 60.0)
    return ExchangeUnreachable(f"{what}: HTTP {status}")


def _is_near(url: str) -> bool:
    """Whether an exchange is on this machine, where the environment's proxies do not lead."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class MarketSocket(ClientConnection):
    """A connection whose messages go to `on_frame` in the moment they are read: there is no queue to overtake."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Set once the connection is open; nothing is subscribed before.
        self.on_frame: Callable[[bytes], None] = lambda _frame: None
        self.on_alive: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self._fragments: list[bytes] = []

    def process_event(self, event: Any) -> None:
        """Called by the connection for the handshake's response and then for each frame."""
        if isinstance(event, Response):
            super().process_event(event)
            return
        assert isinstance(event, Frame)
        self.on_alive()
        if event.opcode not in (Opcode.TEXT, Opcode.CONT, Opcode.BINARY):
            super().process_event(event)
            return
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
            proxy=None if _is_near(url) else True,
            max_size=16 * 2**20,
        )
    except InvalidStatus as error:
        raise _refused(error.response.status_code, error.response.headers, url) from error
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
        self._sent = self._sent | set(streams) if method == "SUBSCRIBE" else self._sent - set(streams)
        try:
            await self._socket.send(protocol.control(method, streams, number))
        except ConnectionClosed as error:
            raise ExchangeUnreachable(f"the connection was lost ({error})") from error

    def answered(self, answer: protocol.Answer) -> str | None:
        """Take an answer in; gives the error where the exchange refused."""
        method, streams = self._asked.pop(answer.id or 0, ("", ()))
        if answer.error is not None:
            self._sent -= set(streams)
            return f"{method} {', '.join(streams[:3])}{'…' if len(streams) > 3 else ''}: {answer.error}"
        self.active = self.active | set(streams) if method == "SUBSCRIBE" else self.active - set(streams)
        return None


async def trading_symbols(rest_url: str) -> set[str]:
    """The symbols with status TRADING, uppercase. Raises ExchangeError."""
    url = f"{rest_url.rstrip('/')}/api/v3/exchangeInfo"
    try:
        async with httpx.AsyncClient(timeout=20, trust_env=not _is_near(url)) as client:
            answer = await client.get(url)
        if answer.status_code != 200:
            raise _refused(answer.status_code, answer.headers, url)
        return {row["symbol"] for row in answer.json()["symbols"] if row["status"] == "TRADING"}
    except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
        raise ExchangeUnreachable(f"can't reach the exchange at {url}: {error or type(error).__name__}") from error
