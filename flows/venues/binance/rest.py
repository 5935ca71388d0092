"""The few REST calls ingest needs, within the exchange's request weight."""

import asyncio
import time
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
import msgspec
from prometheus_client import Gauge
from yarl import URL

from flows.domain.errors import ExchangeUnreachable, RateLimited
from flows.venues.binance.budget import WeightBudget
from flows.venues.binance.failures import is_near, refused

AT_ONCE = 8  # requests
PAGE = 1000  # rows, the most that aggTrades gives
AGG_TRADES_WEIGHT = 4
EXCHANGE_INFO_WEIGHT = 20
TIMEOUT_S = 20.0

WEIGHT = Gauge("ingest_rest_weight", "Request weight used in the last minute")


class Row(msgspec.Struct, gc=False, rename={"first_trade": "f", "last_trade": "l", "time_ms": "T"}):
    """A row of aggTrades: its ids a, f and l, and trade time T. `data` are its exact bytes."""

    a: int
    first_trade: int
    last_trade: int
    time_ms: int


class _Limit(msgspec.Struct, rename="camel"):
    rate_limit_type: str
    interval: str
    limit: int
    interval_num: int = 1


class _Symbol(msgspec.Struct):
    symbol: str
    status: str


class _Info(msgspec.Struct, rename="camel"):
    symbols: list[_Symbol]
    rate_limits: list[_Limit] = []


_rows = msgspec.json.Decoder(list[msgspec.Raw])
_row = msgspec.json.Decoder(Row)
_info = msgspec.json.Decoder(_Info)


class RestClient:
    """One for all connections, since the exchange counts by address. Every call raises ExchangeError."""

    def __init__(self, rest_url: str, budget: WeightBudget | None = None) -> None:
        self._url = rest_url.rstrip("/")
        self.budget = budget or WeightBudget()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._session: aiohttp.ClientSession | None = None
        self._knows_limits = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def trading_symbols(self) -> set[str]:
        """The symbols with status TRADING, uppercase."""
        info = await self._info({})
        return {row.symbol for row in info.symbols if row.status == "TRADING"}

    async def agg_trades(
        self, symbol: str, *, from_id: int | None = None, start_ms: int | None = None, limit: int = PAGE
    ) -> list[tuple[Row, bytes]]:
        """At most `limit` trades in order of `a`, from an id or a trade time on, or the newest; each with its bytes."""
        if not self._knows_limits:
            await self._info({"symbol": symbol})
        asked: dict[str, Any] = {"symbol": symbol, "limit": limit}
        if from_id is not None:
            asked["fromId"] = from_id
        elif start_ms is not None:
            asked["startTime"] = start_ms
        body = await self._get("aggTrades", asked, AGG_TRADES_WEIGHT)
        try:
            return [(_row.decode(raw), bytes(raw)) for raw in _rows.decode(body)]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ExchangeUnreachable(
                f"{self._url} aggTrades of {symbol}: not the exchange's answer: {error}"
            ) from error

    async def _info(self, asked: dict[str, Any]) -> _Info:
        body = await self._get("exchangeInfo", asked, EXCHANGE_INFO_WEIGHT)
        try:
            info = _info.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ExchangeUnreachable(f"{self._url} exchangeInfo: not the exchange's answer: {error}") from error
        for limit in info.rate_limits:
            kind = limit.rate_limit_type, limit.interval, limit.interval_num
            if kind == ("REQUEST_WEIGHT", "MINUTE", 1) and limit.limit > 0:
                self.budget.set_limit(limit.limit)
        self._knows_limits = True
        return info

    async def _get(self, path: str, asked: dict[str, Any], weight: int) -> bytes:
        url = f"{self._url}/api/v3/{path}"
        async with self._slots:
            while delay_s := self.budget.delay_s(weight, time.monotonic()):  # noqa: ASYNC110 - others spend too
                await asyncio.sleep(delay_s)
            self.budget.spend(weight, time.monotonic())
            WEIGHT.set(self.budget.used)
            try:
                async with self._http.get(URL(f"{url}?{urlencode(asked)}" if asked else url, encoded=True)) as answer:
                    body, status, headers = await answer.read(), answer.status, answer.headers
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                raise ExchangeUnreachable(
                    f"can't reach the exchange at {url}: {error or type(error).__name__}"
                ) from error
        now_s = time.monotonic()
        used = headers.get("X-MBX-USED-WEIGHT-1M", "")
        if used.isdigit():
            self.budget.reported(int(used), weight * AT_ONCE, now_s, 61.0 - time.time() % 60)
        if status == 200:
            return body
        error_ = refused(status, headers, url)
        if isinstance(error_, RateLimited):
            self.budget.refused(error_.retry_after_s, now_s)
        raise error_

    @property
    def _http(self) -> aiohttp.ClientSession:
        """Made at the first request, in the loop that makes it."""
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            self._session = aiohttp.ClientSession(timeout=timeout, trust_env=not is_near(self._url))
        return self._session
