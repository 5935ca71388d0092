"""A client of the profile service: what a user of its REST interface and WebSocket does, with reconnects."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus, WebSocketException

from flows.domain.errors import TrackerError

AUTH = "/api/v1/auth"
COINS = "/api/v1/profile/coins"
RENEW_BEFORE_S = 20.0
MAX_PAUSE_S = 10.0
FEW_SYMBOLS = 5

Push = dict[str, Any]  # contract section 4

log = logging.getLogger(__name__)


class NotReachable(TrackerError):
    """Nothing answers there, or not now; worth another try."""


class Refused(TrackerError):
    """The service says no; the message is its `detail`."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


@dataclass(frozen=True)
class Lost:
    """The connection is gone; the next try is at `retry_at` (monotonic clock)."""

    reason: str
    retry_at: float


class PortfolioClient:
    """One user's session; `log_in` first. Every call raises NotReachable or Refused."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._socket_url = url.replace("http", "ws", 1) + "/api/v1/ws"
        self._http = httpx.AsyncClient(base_url=url, timeout=10)
        self._account: dict[str, str] = {}
        self._token = ""

    async def register(self, name: str, password: str) -> bool:
        """A new account; False when the name is taken."""
        try:
            await self._ask("POST", f"{AUTH}/register", {"name": name, "password": password})
        except Refused as error:
            if error.status != httpx.codes.CONFLICT:
                raise
            return False
        return True

    async def log_in(self, name: str, password: str) -> None:
        """Begin a session; the profile is made if registration could not make it."""
        self._account = {"name": name, "password": password}
        self._token = (await self._ask("POST", f"{AUTH}/login", self._account))["accessToken"]
        try:
            await self._ask("POST", "/api/v1/profile")
        except Refused as error:
            if error.status != httpx.codes.CONFLICT:
                raise

    async def hold_at_least(self, coins: dict[str, str]) -> None:
        """These quantities for a user without coins; of other symbols, if the exchange has none of these."""
        if (await self._ask("GET", "/api/v1/profile"))["Coins"]:
            return
        known = [one["symbol"] for one in await self._ask("GET", "/api/v1/symbols")]
        wanted = {symbol: coins[symbol] for symbol in coins if symbol in known}
        for symbol, quantity in (wanted or dict.fromkeys(known[:FEW_SYMBOLS], "1")).items():
            await self._ask("POST", COINS, {"symbol": symbol, "quantity": quantity})

    async def follow(self) -> AsyncGenerator[Push | Lost]:
        """Every push, for good; whenever the connection breaks, a `Lost`, and then a new connection."""
        pause_s = 0.5
        while True:
            try:
                async for push in self._pushes():
                    pause_s = 0.5
                    yield push
                continue
            except (NotReachable, OSError, WebSocketException) as error:
                reason = str(error) or type(error).__name__
            yield Lost(reason, time.monotonic() + pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, MAX_PAUSE_S)

    async def replay(self, start: str, end: str, speed: float | str) -> AsyncGenerator[Push]:
        """The pushes of a replay ([start, end), as the service reads times), until its end."""
        await self._renew()
        headers = {"Authorization": f"Bearer {self._token}"}
        asked = {"type": "replay", "from": start, "to": end, "speed": speed}
        try:
            async with connect(self._socket_url, additional_headers=headers) as socket:
                await socket.send(json.dumps(asked))
                async for text in socket:
                    message = json.loads(text)
                    if message.get("type") == "error":
                        raise Refused(httpx.codes.UNPROCESSABLE_ENTITY, message["Message"])
                    if message.get("type") == "replay_ended":
                        return
                    if "Replay" in message:
                        yield message
        except (OSError, WebSocketException) as error:
            raise NotReachable(str(error) or type(error).__name__) from error
        raise NotReachable("the connection ended before the replay")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _pushes(self) -> AsyncGenerator[Push]:
        """One connection's pushes; it ends before the access token does."""
        await self._renew()
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            async with connect(self._socket_url, additional_headers=headers) as socket:
                while (left_s := self._expires() - RENEW_BEFORE_S - time.time()) > 0:
                    try:
                        async with asyncio.timeout(left_s):
                            message = await socket.recv()
                    except TimeoutError:
                        return
                    push = json.loads(message)
                    if "type" not in push:  # a word about the connection
                        yield push
        except InvalidStatus as error:
            self._token = ""
            raise NotReachable(f"the service answers HTTP {error.response.status_code}") from error

    async def _renew(self) -> None:
        """A token that lives for a while: the same, or by the refresh cookie, or by the password."""
        if self._expires() - RENEW_BEFORE_S > time.time():
            return
        try:
            self._token = (await self._ask("POST", f"{AUTH}/refresh"))["accessToken"]
        except Refused:
            self._token = (await self._ask("POST", f"{AUTH}/login", self._account))["accessToken"]

    def _expires(self) -> float:
        if not self._token:
            return 0.0
        return float(jwt.decode(self._token, options={"verify_signature": False})["exp"])

    async def _ask(self, method: str, path: str, body: dict[str, str] | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        try:
            answer = await self._http.request(method, path, json=body, headers=headers)
        except httpx.TransportError as error:
            raise NotReachable(f"nothing answers at {self.url}") from error
        if answer.is_success:
            return answer.json()
        detail = _detail(answer)
        if answer.status_code in {429, 502, 503, 504}:
            raise NotReachable(detail)
        raise Refused(answer.status_code, detail)


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP {answer.status_code}"
