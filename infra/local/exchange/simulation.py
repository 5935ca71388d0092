"""What Binance does not have: orders to the simulation itself. Loopback only.

- `POST /sim/faults`: faults on demand, see faults.py.
- `POST /sim/rate` `{"rate": 500}`: trades a second from now on.
- `GET /sim/state`: connections, streams, rate, trades made, frames sent, the last id of each symbol, faults.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from typing import TYPE_CHECKING, Any

from aiohttp import web

from infra.local.exchange.faults import AT_ONCE, LASTING, BadFault, options
from infra.local.exchange.streams import Connection

if TYPE_CHECKING:
    from infra.local.exchange.app import Exchange

MIN_RATE, MAX_RATE = 10.0, 50_000.0


class Simulation:
    """The /sim endpoints."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def routes(self) -> list[web.AbstractRouteDef]:
        """All endpoints."""
        return [
            web.post("/sim/faults", self._faults),
            web.post("/sim/rate", self._rate),
            web.get("/sim/state", self._state),
        ]

    async def _faults(self, request: web.Request) -> web.Response:
        body = await _body(request)
        orders = body if isinstance(body, list) else [body]
        try:
            hit = sum([self._order(order) for order in orders])
        except BadFault as error:
            return web.json_response({"error": str(error)}, status=422)
        return web.json_response({"connections": hit, **self._exchange.faults.state()})

    def _order(self, order: Any) -> int:
        """Carry out one order; returns how many connections it hit at once."""
        if not isinstance(order, dict):
            raise BadFault("an order is a JSON object")
        fault, exchange = order.get("fault"), self._exchange
        if fault in LASTING:
            exchange.faults.set(order, exchange.clock.now_ms())
            return 0
        if fault == "clear":
            of = options(order, {"of": ""})["of"]
            exchange.faults.clear(of)
            return self._unsilence() if of in ("", "blackhole") else 0
        if fault == "cut":
            return self._cut(options(order, {"streams": []}))
        if fault == "blackhole":
            return self._blackhole(options(order, {"streams": [], "duration_ms": 0}))
        if fault == "serverShutdown":
            return self._shutdown(options(order, {"close_after_ms": -1}))
        raise BadFault(f"unknown fault {fault!r}; known: {', '.join((*AT_ONCE, *LASTING, 'clear'))}")

    def _aimed(self, streams: list[str]) -> list[Connection]:
        wanted = set(streams)
        return [c for c in self._exchange.hub.connections if not wanted or wanted & c.streams.keys()]

    def _cut(self, chosen: dict[str, Any]) -> int:
        hit = self._aimed(chosen["streams"])
        for connection in hit:
            connection.reset()
        return len(hit)

    def _blackhole(self, chosen: dict[str, Any]) -> int:
        hit = self._aimed(chosen["streams"])
        for connection in hit:
            connection.silence()
            if chosen["duration_ms"]:
                asyncio.get_running_loop().call_later(chosen["duration_ms"] / 1000, connection.unsilence)
        return len(hit)

    def _unsilence(self) -> int:
        silent = [connection for connection in self._exchange.hub.connections if connection.silent]
        for connection in silent:
            connection.unsilence()
        return len(silent)

    def _shutdown(self, chosen: dict[str, Any]) -> int:
        self._exchange.engine.announce_shutdown()
        hit = list(self._exchange.hub.connections)
        if chosen["close_after_ms"] >= 0:
            loop = asyncio.get_running_loop()
            for connection in hit:
                loop.call_later(
                    chosen["close_after_ms"] / 1000, self._exchange.sessions.end, connection, b"server shutdown"
                )
        return len(hit)

    async def _rate(self, request: web.Request) -> web.Response:
        body = await _body(request)
        rate = body.get("rate") if isinstance(body, dict) else None
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not MIN_RATE <= rate <= MAX_RATE:
            return web.json_response({"error": f"rate must be {MIN_RATE:.0f} to {MAX_RATE:.0f}"}, status=422)
        if self._exchange.market is None:
            return web.json_response({"error": "a recording has its own pace"}, status=422)
        self._exchange.market.set_rate(float(rate))
        return web.json_response({"rate": rate})

    async def _state(self, request: web.Request) -> web.Response:
        _loopback_only(request)
        exchange = self._exchange
        last = {symbol: exchange.history.symbol(symbol).last for symbol in exchange.tickers.by_symbol}
        return web.json_response(
            {
                "connections": len(exchange.hub.connections),
                "streams": exchange.hub.listeners(),
                "rate": exchange.market.rate if exchange.market else None,
                "recording_finished": exchange.recording.finished if exchange.recording else None,
                "trades": exchange.engine.trades_made,
                "frames": exchange.hub.frames_sent,
                "last_ids": {symbol: trade.agg_id if trade else None for symbol, trade in last.items()},
                "faults": exchange.faults.state(),
            }
        )


def _loopback_only(request: web.Request) -> None:
    if not ipaddress.ip_address(request.remote or "0.0.0.0").is_loopback:  # noqa: S104 - stands for "unknown"
        raise web.HTTPForbidden()


async def _body(request: web.Request) -> Any:
    _loopback_only(request)
    try:
        return json.loads(await request.read())
    except ValueError as error:
        raise web.HTTPUnprocessableEntity(text="not JSON") from error
