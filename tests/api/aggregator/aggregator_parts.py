"""What the tests of the aggregator hold on to."""

import asyncio
from dataclasses import dataclass, field

import httpx

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "币安人生USDT")


@dataclass
class Neighbours:
    """The exchange and ingest: where they are and how they are."""

    address: str = ""
    exchange_up: bool = True
    ingest_up: bool = True
    streams: list[str] = field(default_factory=list)


async def is_ready(client: httpx.AsyncClient) -> None:
    """Waits until the instance has read its topic."""
    async with asyncio.timeout(60):
        while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - it is the broker that is waited for
            await asyncio.sleep(0.05)


async def add(client: httpx.AsyncClient, symbol: str, user: str) -> httpx.Response:
    return await client.get("/coin", params={"symbol": symbol, "id": user})


async def remove(client: httpx.AsyncClient, symbol: str, user: str) -> httpx.Response:
    return await client.delete("/coin", params={"symbol": symbol, "id": user})


async def desired(client: httpx.AsyncClient) -> dict[str, int]:
    """Subscribers by symbol."""
    answer = (await client.get("/subscriptions")).json()
    return {one["symbol"]: one["subscribers"] for one in answer["desired"]}
