"""The hub with a feed that answers when it is told to."""

import asyncio
import json
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from profile_parts import second_stat

from api.profile.hub import Hub
from api.profile.prices import Quote
from api.profile.repository import CoinRow
from api.profile.security import User


class Feed:
    """Prices are read when `answer` is set."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answer = asyncio.Event()

    def watch(self, quote: Quote) -> None:
        pass

    def unwatch(self, quote: Quote) -> None:
        pass

    async def load(self, quotes: Iterable[Quote]) -> None:
        quotes = list(quotes)
        self.asked += [quote.symbol for quote in quotes]
        await self.answer.wait()
        for quote in quotes:
            quote.apply_second_stat(second_stat(quote.symbol, "100.00000000", 1_790_000_000_000))


async def one_coin(user_id: uuid.UUID) -> list[CoinRow]:
    now = datetime.now(UTC)
    return [CoinRow(1, now, now, None, "btcusdt", Decimal(1), user_id)]


async def first_price(hub: Hub, name: str) -> str | None:
    async with hub.viewer(User(uuid.uuid4(), name)) as viewer:
        coins = json.loads(viewer.live.push.numbered(1))["Coins"]
        price: str | None = coins[0]["Price"]
        return price


@pytest.fixture
def hub() -> Hub:
    hub = Hub(one_coin, 0.05, 60)
    hub.feed = Feed()
    return hub


async def until_asked(feed: Feed) -> None:
    while not feed.asked:  # noqa: ASYNC110 - it is another task's state
        await asyncio.sleep(0)
    for _ in range(10):
        await asyncio.sleep(0)


async def test_who_comes_while_a_price_is_read_waits_for_it(hub: Hub) -> None:
    assert isinstance(hub.feed, Feed)
    prices = [asyncio.create_task(first_price(hub, name)) for name in ("ada", "bob")]
    await until_asked(hub.feed)
    hub.feed.answer.set()
    assert await asyncio.gather(*prices) == ["100", "100"]
    assert hub.feed.asked == ["btcusdt"]


async def test_who_waits_gets_the_price_though_the_first_has_left(hub: Hub) -> None:
    assert isinstance(hub.feed, Feed)
    ada, bob = (asyncio.create_task(first_price(hub, name)) for name in ("ada", "bob"))
    await until_asked(hub.feed)
    ada.cancel()
    await asyncio.wait([ada])
    hub.feed.answer.set()
    assert await bob == "100"
