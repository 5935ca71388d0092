"""/livez, /readyz, /healthz and /metrics of one exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from infra.local.exchange.app import Exchange


class _ExchangeCollector(Collector):
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def collect(self) -> Iterator[Metric]:
        exchange = self._exchange
        yield CounterMetricFamily("exchange_trades", "Aggregate trades made", value=exchange.engine.trades_made)
        yield CounterMetricFamily("exchange_frames", "Frames queued for clients", value=exchange.hub.frames_sent)
        yield GaugeMetricFamily("exchange_connections", "Open stream connections", len(exchange.hub.connections))
        hits = CounterMetricFamily("exchange_fault_hits", "How often a fault struck", labels=["fault"])
        for fault, count in exchange.faults.hits.items():
            hits.add_metric([fault], count)
        yield hits


class Health:
    """The health endpoints. An exchange serves nothing before it is ready, so they need no look inside."""

    def __init__(self, exchange: Exchange) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_ExchangeCollector(exchange))

    def routes(self) -> list[web.AbstractRouteDef]:
        """All endpoints."""
        checks = [web.get(path, self._ok) for path in ("/livez", "/readyz", "/healthz")]
        return [*checks, web.get("/metrics", self._metrics)]

    async def _ok(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=generate_latest(self._registry), headers={"Content-Type": "text/plain; version=0.0.4"})
