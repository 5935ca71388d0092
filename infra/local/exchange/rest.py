"""REST under /api/v3, from the exchange's own history, with weights and Binance's errors."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any

from aiohttp import web

from infra.local.exchange.engine import Clock
from infra.local.exchange.exchange_info import ExchangeInfo
from infra.local.exchange.faults import Faults
from infra.local.exchange.history import History
from infra.local.exchange.klines import INTERVALS_MS, klines
from infra.local.exchange.limits import RequestWeights, Verdict
from infra.local.exchange.params import ApiError, Params, invalid_symbol
from infra.local.exchange.tickers import DAY_MINUTES, MINUTE_MS, Ticker, Tickers
from infra.local.exchange.trade import UNIT, Trade
from infra.local.exchange.wire import decimal

Handler = Callable[[Params], Awaitable[Any]]
_TOO_MUCH = (
    "Too much request weight used; current limit is {limit} request weight per 1 MINUTE. "
    "Please use WebSocket Streams for live updates to avoid polling the API."
)
_BANNED = (
    "Way too much request weight used; IP banned until {until}. "
    "Please use WebSocket Streams for live updates to avoid bans."
)


_RESTRICTED = "Service unavailable from a restricted location according to 'b. Eligibility' in the terms."


@dataclass(frozen=True)
class Endpoint:
    """A path below /api/v3, the parameters it knows, its handler and its weight."""

    path: str
    known: set[str]
    handler: Handler
    weight: int | Callable[[Params], int]


class Rest:
    """Answers from the exchange's history."""

    def __init__(
        self,
        history: History,
        tickers: Tickers,
        info: ExchangeInfo,
        weights: RequestWeights,
        faults: Faults,
        clock: Clock,
    ) -> None:
        self._history, self._tickers, self._info = history, tickers, info
        self._weights, self._faults, self._clock = weights, faults, clock

    def routes(self) -> list[web.AbstractRouteDef]:
        """All endpoints."""
        window = {"symbol", "startTime", "endTime", "limit"}
        info = {"symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"}
        endpoints = (
            Endpoint("ping", set(), self._ping, 1),
            Endpoint("time", set(), self._time, 1),
            Endpoint("exchangeInfo", info, self._exchange_info, 20),
            Endpoint("aggTrades", {*window, "fromId"}, self._agg_trades, 4),
            Endpoint("trades", {"symbol", "limit"}, self._trades, 25),
            Endpoint("klines", {*window, "interval", "timeZone"}, self._klines, 2),
            Endpoint("ticker/24hr", {"symbol", "symbols", "type"}, self._tickers_24h, _day_weight),
            Endpoint("ticker/price", {"symbol", "symbols"}, self._prices, lambda p: 2 if p.has("symbol") else 4),
        )
        return [web.get(f"/api/v3/{endpoint.path}", self._served(endpoint)) for endpoint in endpoints]

    def _served(self, endpoint: Endpoint) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            params = Params(request.query, endpoint.known)
            if failed := self._faults.rest_error(request.path, self._clock.now_ms()):
                return _failure(*failed)
            weight = endpoint.weight if isinstance(endpoint.weight, int) else endpoint.weight(params)
            verdict = self._weights.spend(request.remote or "", weight, time.time())
            headers = {"X-MBX-USED-WEIGHT": str(verdict.used), "X-MBX-USED-WEIGHT-1M": str(verdict.used)}
            if verdict.status != 200:
                return self._refusal(verdict, headers)
            try:
                params.check_names()
                answer = await endpoint.handler(params)
            except ApiError as error:
                return web.json_response({"code": error.code, "msg": str(error)}, status=400, headers=headers)
            body = answer if isinstance(answer, bytes) else _dumps(answer)
            return web.Response(body=body, content_type="application/json", charset="utf-8", headers=headers)

        return serve

    def _refusal(self, verdict: Verdict, headers: dict[str, str]) -> web.Response:
        until = self._clock.now_ms() + verdict.retry_after_s * 1000
        text = (_TOO_MUCH if verdict.status == 429 else _BANNED).format(limit=self._weights.limit, until=until)
        headers["Retry-After"] = str(verdict.retry_after_s)
        return web.json_response({"code": -1003, "msg": text}, status=verdict.status, headers=headers)

    async def _ping(self, _: Params) -> Any:
        return {}

    async def _time(self, _: Params) -> Any:
        return {"serverTime": self._clock.now_ms()}

    async def _exchange_info(self, params: Params) -> Any:
        return self._info.body(self._clock.now_ms(), self._wanted(params))

    async def _agg_trades(self, params: Params) -> Any:
        symbol = self._symbol(params)
        from_id, limit = params.number("fromId"), params.limit(500)
        start_ms, end_ms = params.number("startTime"), params.number("endTime")
        file = self._history.symbol(symbol)
        if from_id is not None:
            if start_ms is not None or end_ms is not None:
                raise ApiError(-1128, "Combination of optional parameters invalid.")
            found = list(islice((t for t in file.from_id(from_id) if t.listed), limit))
        elif start_ms is not None:
            trades = file.between(start_ms, end_ms if end_ms is not None else 2**62)
            found = list(islice((t for t in trades if t.listed), limit))
        elif end_ms is not None:
            before = (t for t in file.before(end_ms + 1) if t.listed)
            found = list(islice(before, limit))[::-1]
        else:
            found = self._history.newest(symbol, limit)
        return [_agg_row(trade) for trade in found]

    async def _trades(self, params: Params) -> Any:
        symbol, limit = self._symbol(params), params.limit(500)
        rows = [row for trade in self._history.newest(symbol, limit) for row in _single_rows(trade)]
        return rows[-limit:]

    async def _klines(self, params: Params) -> Any:
        symbol, interval, limit = self._symbol(params), params.text("interval"), params.limit(500)
        if interval not in INTERVALS_MS:
            raise ApiError(-1120, "Invalid interval.")
        start_ms, end_ms = params.number("startTime"), params.number("endTime")
        end_ms = self._clock.now_ms() if end_ms is None else min(end_ms, self._clock.now_ms())
        # In a thread: wide ranges read many trades, and the market must not stand still meanwhile.
        found = await asyncio.to_thread(klines, self._history.symbol(symbol), interval, start_ms, end_ms, limit)
        return [kline.row() for kline in found]

    async def _tickers_24h(self, params: Params) -> Any:
        now_ms = self._clock.now_ms()
        rows = [_ticker_row(ticker, now_ms) for ticker in self._chosen(params)]
        return rows[0] if params.has("symbol") else rows

    async def _prices(self, params: Params) -> Any:
        rows = [{"symbol": ticker.symbol, "price": decimal(ticker.close)} for ticker in self._chosen(params)]
        return rows[0] if params.has("symbol") else rows

    def _chosen(self, params: Params) -> list[Ticker]:
        wanted = self._wanted(params)
        return (
            list(self._tickers.by_symbol.values()) if wanted is None else [self._tickers.by_symbol[s] for s in wanted]
        )

    def _symbol(self, params: Params) -> str:
        symbol = params.symbol()
        if symbol not in self._tickers.by_symbol:
            raise invalid_symbol()
        return symbol

    def _wanted(self, params: Params) -> list[str] | None:
        """The symbols of `symbol` or `symbols`, all known; None if neither was sent."""
        if params.has("symbol"):
            return [self._symbol(params)]
        wanted = params.symbols()
        if wanted is not None and not all(symbol in self._tickers.by_symbol for symbol in wanted):
            raise invalid_symbol()
        return wanted


def _dumps(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _failure(status: int, retry_after_s: int) -> web.Response:
    """What the `rest_errors` fault answers."""
    code, text = -1000, "An unknown error occurred while processing the request."
    if status in (418, 429):
        code, text = -1003, "Too many requests."
    elif status == 451:
        code, text = 0, _RESTRICTED
    return web.json_response({"code": code, "msg": text}, status=status, headers={"Retry-After": str(retry_after_s)})


def _day_weight(params: Params) -> int:
    if params.has("symbol"):
        return 2
    asked = params.given("symbols").count(",") + 1 if params.has("symbols") else 1000
    return 2 if asked <= 20 else 40 if asked <= 100 else 80


def _agg_row(trade: Trade) -> dict[str, Any]:
    return {
        "a": trade.agg_id,
        "p": decimal(trade.price),
        "q": decimal(trade.quantity),
        "f": trade.first_id,
        "l": trade.last_id,
        "T": trade.trade_ms,
        "m": trade.buyer_is_maker,
        "M": True,
    }


def _single_rows(trade: Trade) -> list[dict[str, Any]]:
    return [
        {
            "id": trade_id,
            "price": decimal(trade.price),
            "qty": decimal(quantity),
            "quoteQty": decimal(trade.price * quantity // UNIT),
            "time": trade.trade_ms,
            "isBuyerMaker": trade.buyer_is_maker,
            "isBestMatch": True,
        }
        for trade_id, quantity in trade.pieces()
    ]


def _signed(units: int) -> str:
    return ("-" if units < 0 else "") + decimal(abs(units))


def _ticker_row(ticker: Ticker, now_ms: int) -> dict[str, Any]:
    change = ticker.close - ticker.open
    average = ticker.quote_volume // ticker.volume if ticker.volume else ticker.close
    return {
        "symbol": ticker.symbol,
        "priceChange": _signed(change),
        "priceChangePercent": f"{100 * change / ticker.open:.3f}",
        "weightedAvgPrice": decimal(average),
        "prevClosePrice": decimal(ticker.open),
        "lastPrice": decimal(ticker.close),
        "openPrice": decimal(ticker.open),
        "highPrice": decimal(ticker.high),
        "lowPrice": decimal(ticker.low),
        "volume": decimal(ticker.volume),
        "quoteVolume": decimal(ticker.quote_volume // UNIT),
        "openTime": now_ms - DAY_MINUTES * MINUTE_MS,
        "closeTime": now_ms,
        "count": ticker.trades,
    }
