"""Which symbols the exchange knows: asked over REST, kept for five minutes, and longer while it is away."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx
import msgspec

from flows.domain.errors import ExchangeBlocked, ExchangeError, ExchangeUnreachable, RateLimited
from infra.settings import Settings

MAX_AGE_S = 300.0
RETRY_AFTER_S = 5.0
TIMEOUT_S = 3.0
TRADING = "TRADING"
_BINANCE_URL = "https://data-api.binance.vision"
_SIMULATED_PORT = 9443

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Symbol:
    """A pair, all uppercase; `status` is the exchange's (TRADING, END_OF_DAY, HALT, BREAK, CANCEL_ONLY)."""

    symbol: str
    base: str
    quote: str
    status: str

    @property
    def trading(self) -> bool:
        """Only these can be held anew."""
        return self.status == TRADING


class _Row(msgspec.Struct, rename="camel"):
    symbol: str
    status: str
    base_asset: str
    quote_asset: str


class _ExchangeInfo(msgspec.Struct):
    """Of `/api/v3/exchangeInfo`, what is needed: {"symbols":[{"symbol":"BTCUSDT","status":"TRADING",…}]}."""

    symbols: list[_Row]


class SymbolDirectory:
    """Every symbol of the exchange. `await refresh()` before asking; `get` and `search` only look up."""

    def __init__(self, rest_url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = httpx.AsyncClient(base_url=rest_url, timeout=TIMEOUT_S)
        self._clock = clock
        self._lock = asyncio.Lock()
        self._symbols: dict[str, Symbol] = {}
        self._fresh_until = self._quiet_until = float("-inf")
        self._failure: ExchangeError | None = None

    @property
    def known(self) -> bool:
        """Has the exchange ever answered?"""
        return bool(self._symbols)

    async def refresh(self) -> None:
        """Ask the exchange if its last answer is older than five minutes.

        When it is away the last answer stays, and it is asked again after 5 s (or what it told us to wait).
        Raises ExchangeError only while it has never answered.
        """
        if self._clock() < self._fresh_until or (self.known and self._lock.locked()):
            return
        async with self._lock:
            now = self._clock()
            if now >= self._fresh_until and now >= self._quiet_until:
                await self._ask()
        if not self.known and self._failure is not None:
            raise self._failure

    def get(self, symbol: str) -> Symbol | None:
        """The symbol of this name, in any case."""
        found = self._symbols.get(symbol.upper())
        # Other letters have the same capitals: "btcuſdt" is no other spelling of BTCUSDT.
        return found if found and found.symbol.lower() == symbol.lower() else None

    def search(self, query: str = "") -> list[Symbol]:
        """The symbols that trade and contain `query`, in any case; those whose base it begins come first."""
        wanted = query.strip().upper()
        found = [one for one in self._symbols.values() if one.trading and wanted in one.symbol]
        return sorted(found, key=lambda one: (one.base != wanted, not one.symbol.startswith(wanted), one.symbol))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _ask(self) -> None:
        try:
            symbols = await self._fetch()
        except ExchangeError as error:
            wait_s = error.retry_after_s if isinstance(error, RateLimited) else RETRY_AFTER_S
            self._quiet_until = self._clock() + wait_s
            self._failure = error
            log.warning("the list of symbols stays as it is: %s", error)
        else:
            self._symbols = {one.symbol: one for one in symbols}
            self._fresh_until = self._clock() + MAX_AGE_S

    async def _fetch(self) -> list[Symbol]:
        try:
            response = await self._client.get("/api/v3/exchangeInfo", params={"showPermissionSets": "false"})
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise ExchangeUnreachable(f"the exchange at {self._client.base_url} does not answer: {reason}") from error
        _raise_for(response)
        try:
            rows = msgspec.json.decode(response.content, type=_ExchangeInfo).symbols
        except msgspec.DecodeError as error:
            raise ExchangeUnreachable(f"not an answer of exchangeInfo: {error}") from error
        if not rows:
            raise ExchangeUnreachable("the exchange lists no symbols")
        return [Symbol(row.symbol.upper(), row.base_asset, row.quote_asset, row.status) for row in rows]


def rest_url(settings: Settings) -> str:
    """Where the exchange's REST interface is: EXCHANGE_REST_URL, or the usual place of EXCHANGE."""
    if settings.exchange_rest_url:
        return settings.exchange_rest_url
    if settings.exchange == "binance":
        return _BINANCE_URL
    return f"http://127.0.0.1:{_SIMULATED_PORT + settings.port_offset}"


def _raise_for(response: httpx.Response) -> None:
    match response.status_code:
        case 200:
            return
        case 429 | 418:
            told = response.headers.get("Retry-After", "")
            raise RateLimited("the exchange limits our requests", float(told) if told.isdigit() else 60.0)
        case 451 | 403:
            raise ExchangeBlocked(f"the exchange refuses this address (HTTP {response.status_code})")
        case status:
            raise ExchangeUnreachable(f"the exchange answers HTTP {status}")
