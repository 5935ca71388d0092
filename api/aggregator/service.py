"""Subscriptions of users to symbols, and which streams run for them."""

import asyncio
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

import httpx
import msgspec

from api.aggregator.errors import NotAvailable, UnknownSymbol
from api.aggregator.repository import SubscriptionLog
from api.symbols import SymbolDirectory
from flows.domain.errors import ExchangeError

ALL_SYMBOLS = "*"
_INGEST_TIMEOUT_S = 1.0
_LEASES_EVERY_S = 1.0
GRACE_S = 10.0  # a holder that could not renew asks again every few seconds

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wanted:
    """A symbol (uppercase) that should stream, and for whom."""

    symbol: str
    subscribers: int
    always_on: bool


class _Streams(msgspec.Struct):
    """Of ingest's `/streams`, what is needed: {"aggtrade":["BTCUSDT",…]}."""

    aggtrade: list[str]


class Ingest:
    """Which streams ingest has, asked over its health server."""

    def __init__(self, host: str, port: int) -> None:
        netloc = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._client = httpx.AsyncClient(base_url=f"http://{netloc}", timeout=_INGEST_TIMEOUT_S, trust_env=False)

    async def streams(self) -> list[str] | None:
        """The symbols (uppercase) whose trades stream; None when ingest can't be asked."""
        try:
            response = await self._client.get("/streams")
            response.raise_for_status()
            return msgspec.json.decode(response.content, type=_Streams).aggtrade
        except (httpx.HTTPError, msgspec.DecodeError) as error:
            log.debug("ingest: %s", error)
            return None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class AggregatorService:
    """Adds and removes subscriptions; both are idempotent and in Kafka before they are answered."""

    def __init__(
        self, log_of_subscriptions: SubscriptionLog, symbols: SymbolDirectory, ingest: Ingest, always_on: Iterable[str]
    ) -> None:
        self._log = log_of_subscriptions
        self._symbols = symbols
        self._ingest = ingest
        self._always_on = frozenset(always_on)

    async def add(self, symbol: str, user: str, ttl_s: float | None = None) -> int:
        """The symbol's subscribers, now with `user`: for good, or until `ttl_s` from now unless it is added again.

        Raises UnknownSymbol, NotAvailable.
        """
        symbol = symbol.upper()
        await self._require_known(symbol)
        await self._log.add(symbol, user, None if ttl_s is None else _now_ms() + round(ttl_s * 1000))
        return self._log.state.subscribers(symbol)

    async def remove(self, symbol: str, user: str) -> int:
        """The symbol's subscribers, now without `user`. Raises UnknownSymbol, NotAvailable."""
        symbol = symbol.upper()
        # What is subscribed can be taken back, even if the exchange has dropped it or is away.
        if not self._log.state.subscribers(symbol):
            await self._require_known(symbol)
        await self._log.remove(symbol, user)
        return self._log.state.subscribers(symbol)

    async def take_back_leases(self) -> None:
        """Take back the leases that have run out, for ever.

        Only when they could have been renewed for GRACE_S: after an outage of ours or of Kafka's their holders
        come first, and no stream that is in use is stopped.
        """
        could_since: float | None = None
        while True:
            await asyncio.sleep(_LEASES_EVERY_S)
            if not (leases := self._log.state.run_out(_now_ms())):
                could_since = None
                continue
            if (reason := await self._log.unavailable()) is not None:
                log.warning("%d leases end later: %s", len(leases), reason)
                could_since = None
                continue
            could_since = time.monotonic() if could_since is None else could_since
            if time.monotonic() - could_since >= GRACE_S:
                await self._take_back(leases)

    async def _take_back(self, leases: Iterable[tuple[str, str]]) -> None:
        for symbol, user in leases:
            if (symbol, user) not in self._log.state.run_out(_now_ms()):
                continue  # renewed meanwhile
            try:
                await self._log.remove(symbol, user)
            except NotAvailable as error:
                log.warning("the lease of %s for %s ends later: %s", symbol, user, error)
                return
            log.info("the lease of %s for %s has run out", symbol, user)

    async def desired(self) -> list[Wanted]:
        """Every symbol that should stream, by name. Raises NotAvailable until the subscriptions are read."""
        self._log.require_complete()
        counts, always_on = self._log.state.counts(), await self._always_on_symbols()
        return [Wanted(one, counts.get(one, 0), one in always_on) for one in sorted(counts.keys() | always_on)]

    async def actual(self) -> list[str] | None:
        """The symbols that stream, by name; None when ingest can't be asked."""
        streams = await self._ingest.streams()
        return None if streams is None else sorted(streams)

    async def _always_on_symbols(self) -> frozenset[str]:
        if ALL_SYMBOLS not in self._always_on:
            return self._always_on
        await self._refresh()
        return frozenset(one.symbol for one in self._symbols.search())

    async def _require_known(self, symbol: str) -> None:
        await self._refresh()
        if self._symbols.get(symbol) is None:
            raise UnknownSymbol(f"symbol: the exchange has no {symbol.lower()}")

    async def _refresh(self) -> None:
        try:
            await self._symbols.refresh()
        except ExchangeError as error:
            raise NotAvailable(f"the exchange's symbols are not known yet: {error}") from error


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
