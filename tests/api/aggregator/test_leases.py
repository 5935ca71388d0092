"""Subscriptions with a term: renewed, run out, survived by the aggregator."""

import asyncio
import time
from typing import Any

import pytest
from aggregator_parts import desired, remove

from api.aggregator import service as service_module


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "GRACE_S", 1.0)


async def lease(client: Any, symbol: str, holder: str, ttl: str) -> Any:
    return await client.get("/coin", params={"symbol": symbol, "id": holder, "ttl": ttl})


async def gone(client: Any, symbol: str) -> None:
    async with asyncio.timeout(60):
        while symbol in await desired(client):  # noqa: ASYNC110 - it is the aggregator that is waited for
            await asyncio.sleep(0.05)


async def test_a_lease_that_nobody_renews_runs_out(aggregator: Any) -> None:
    async with aggregator() as client:
        response = await lease(client, "btcusdt", "socket:1", "1s")
        assert (response.status_code, response.json()) == (200, {"symbol": "btcusdt", "subscribers": 1})
        assert (await client.get("/coin", params={"symbol": "ethusdt", "id": "u1"})).status_code == 200
        await gone(client, "btcusdt")
        assert await desired(client) == {"ethusdt": 1}


async def test_a_renewed_lease_stays(aggregator: Any) -> None:
    async with aggregator() as client:
        await lease(client, "ethusdt", "socket:2", "1s")
        await lease(client, "btcusdt", "socket:1", "1s")
        await lease(client, "btcusdt", "socket:1", "1h")
        await gone(client, "ethusdt")
        assert await desired(client) == {"btcusdt": 1}
        assert (await remove(client, "btcusdt", "socket:1")).json()["subscribers"] == 0


async def test_a_subscription_without_a_term_ends_the_lease(aggregator: Any) -> None:
    async with aggregator() as client:
        await lease(client, "ethusdt", "socket:2", "1s")
        await lease(client, "btcusdt", "u1", "1s")
        await client.get("/coin", params={"symbol": "btcusdt", "id": "u1"})
        await gone(client, "ethusdt")
        assert await desired(client) == {"btcusdt": 1}


async def test_a_lease_runs_out_while_the_aggregator_is_down(aggregator: Any) -> None:
    async with aggregator() as client:
        await lease(client, "btcusdt", "socket:1", "1s")
    async with aggregator() as client:
        await gone(client, "btcusdt")


async def test_after_an_outage_a_holder_comes_before_the_end_of_its_lease(
    aggregator: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not renew while the aggregator was down; its stream must not be stopped for that."""
    monkeypatch.setattr(service_module, "GRACE_S", 5.0)
    monkeypatch.setattr(service_module, "_LEASES_EVERY_S", 0.02)
    async with aggregator() as client:
        await lease(client, "btcusdt", "socket:1", "1s")
        await lease(client, "ethusdt", "socket:2", "1s")
    async with aggregator() as client:
        until = time.monotonic() + 2
        while time.monotonic() < until:
            assert await desired(client) == {"btcusdt": 1, "ethusdt": 1}
        await lease(client, "btcusdt", "socket:1", "1h")
        await gone(client, "ethusdt")
        assert await desired(client) == {"btcusdt": 1}


@pytest.mark.parametrize("ttl", ["", "0s", "-1s", "soon", "100h", "0.5s"])
async def test_a_term_that_is_none(aggregator: Any, ttl: str) -> None:
    async with aggregator() as client:
        assert (await lease(client, "btcusdt", "socket:1", ttl)).status_code == 422
        assert await desired(client) == {}
