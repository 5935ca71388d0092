"""The exchange's own 1-second candles over REST: what SecondStats are checked against."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from flows import drain
from flows.domain.errors import ExchangeBlocked, ExchangeError, ExchangeUnreachable, InvalidRecord, RateLimited
from flows.domain.market import SECOND_MS, scaled

MOST_ROWS = 1000
# Of the 6000 a minute that an address has: ingest, on the same address, needs weight to fill its gaps.
WEIGHT_A_MINUTE = 3000
ATTEMPTS = 4
LONGEST_WAIT_S = 130.0  # a ban's Retry-After, and no longer


@dataclass(frozen=True, slots=True)
class Kline:
    """A 1-second candle: amounts in units of 1e-8, the quote volumes too."""

    timestamp: int  # ms
    open: int
    high: int
    low: int
    close: int
    volume: int
    quote_volume: int
    trade_count: int
    taker_buy_volume: int
    taker_buy_quote_volume: int

    @classmethod
    def of(cls, row: list[Any]) -> "Kline":
        """From `[openTime,o,h,l,c,volume,closeTime,quoteVolume,trades,takerBase,takerQuote,"0"]`.

        Raises what a row of another shape leads to.
        """
        opened, *amounts, _closes, quote, trades, taker_base, taker_quote, _unused = row
        o, h, low, c, volume, quote, taker_base, taker_quote = map(scaled, [*amounts, quote, taker_base, taker_quote])
        return cls(int(opened), o, h, low, c, volume, quote, int(trades), taker_base, taker_quote)


class KlineClient:
    """Asks within the weight limit: waits for the next minute, or as long as a refusal says."""

    def __init__(self, rest_url: str) -> None:
        self._url = f"{rest_url.rstrip('/')}/api/v3/klines"
        near = httpx.URL(rest_url).host in ("127.0.0.1", "localhost", "::1")  # proxies do not lead there
        self._client = httpx.Client(timeout=30, trust_env=not near)
        self._used = 0

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def klines(self, symbol: str, start_ms: int, end_ms: int) -> Iterator[Kline]:
        """Those that open in [start_ms, end_ms), in order. Raises ExchangeError."""
        while start_ms < end_ms:
            rows = self._rows(symbol, start_ms, end_ms)
            yield from rows
            if not rows or rows[-1].timestamp < start_ms:
                return
            start_ms = rows[-1].timestamp + SECOND_MS

    def _rows(self, symbol: str, start_ms: int, end_ms: int) -> list[Kline]:
        asked = {"symbol": symbol, "interval": "1s", "startTime": start_ms, "endTime": end_ms - 1, "limit": MOST_ROWS}
        for attempt in range(ATTEMPTS):
            try:
                return [Kline.of(row) for row in self._get(asked)]
            except RateLimited as error:
                if attempt == ATTEMPTS - 1 or error.retry_after_s > LONGEST_WAIT_S:
                    raise
                drain.wait(error.retry_after_s)
            except ExchangeUnreachable:
                if attempt == ATTEMPTS - 1:
                    raise
                drain.wait(0.5 * 2**attempt)
            except (ValueError, TypeError, InvalidRecord) as error:
                raise ExchangeError(f"{self._url}: not klines: {error}") from error
        raise AssertionError("unreachable: the last attempt returns or raises")

    def _get(self, asked: dict[str, Any]) -> Any:
        if self._used >= WEIGHT_A_MINUTE:
            drain.wait(60 - time.time() % 60 + 1)
        try:
            answer = self._client.get(self._url, params=asked)
        except httpx.HTTPError as error:
            raise ExchangeUnreachable(f"can't reach {self._url}: {error or type(error).__name__}") from error
        used = answer.headers.get("X-MBX-USED-WEIGHT-1M", "")
        self._used = int(used) if used.isdigit() else 0
        if answer.status_code == 200:
            return json.loads(answer.content)
        if answer.status_code in (418, 429):
            wait = answer.headers.get("Retry-After", "")
            raise RateLimited(f"{self._url}: HTTP {answer.status_code}", float(wait) if wait.isdigit() else 60.0)
        if answer.status_code in (403, 451):
            raise ExchangeBlocked(f"{self._url}: HTTP {answer.status_code}: the exchange does not serve this address")
        if answer.status_code >= 500:
            raise ExchangeUnreachable(f"{self._url}: HTTP {answer.status_code}")
        raise ExchangeError(f"{self._url}: HTTP {answer.status_code} for {asked['symbol']}: {answer.text[:200]}")
