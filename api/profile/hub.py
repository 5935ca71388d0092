"""Everybody who watches: portfolios by user, quotes by symbol, and who is to be told when something changes.

Work that is the same for many is done once: a symbol's price, a user's push.
"""

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

from prometheus_client import Gauge

from api.database import DatabaseAway
from api.profile.errors import NotAuthenticated
from api.profile.portfolio import Holding
from api.profile.prices import Quote
from api.profile.repository import CoinRow
from api.profile.security import User
from api.profile.viewers import LivePortfolio, Viewer

PUSH_AT_ONCE = 100  # clients pushed to before others get a turn
AGE_EVERY_S = 1.0
RETRY_S = 1.0

VIEWERS = Gauge("bff_websocket_clients", "Connected clients")

log = logging.getLogger(__name__)


class Feed(Protocol):
    """Where quotes come from; see `redis_feed`."""

    def watch(self, quote: Quote) -> None: ...
    def unwatch(self, quote: Quote) -> None: ...
    async def load(self, quotes: Iterable[Quote]) -> None: ...


class Hub:
    """`load` reads a user's coins from the database; `run` must be running for prices to be pushed."""

    def __init__(
        self,
        load: Callable[[uuid.UUID], Awaitable[list[CoinRow]]],
        push_window_s: float,
        stale_after_s: float,
    ) -> None:
        self._load = load
        self._push_window_s = push_window_s
        self._stale_after_ms = int(stale_after_s * 1000)
        self._users: dict[uuid.UUID, LivePortfolio] = {}
        self._holders: dict[Quote, set[LivePortfolio]] = {}
        self._quotes: dict[str, Quote] = {}
        self._changed_quotes: set[Quote] = set()
        self._prices_changed = asyncio.Event()
        self._reloads: set[asyncio.Task[None]] = set()
        self._price_loads: dict[Quote, asyncio.Task[None]] = {}
        self.feed: Feed

    @asynccontextmanager
    async def viewer(self, user: User) -> AsyncIterator[Viewer]:
        """A connection of this user.

        Raises DatabaseAway if the coins are neither in memory nor in the database, NotAuthenticated if the account has
        been deleted.
        """
        live = self._users.get(user.id)
        if live is None:
            live = self._users[user.id] = LivePortfolio(user)
        viewer = Viewer(live)
        live.viewers.add(viewer)
        VIEWERS.inc()
        try:
            if not live.loaded:
                await self._reload(live)
            yield viewer
        finally:
            VIEWERS.dec()
            live.viewers.discard(viewer)
            if not live.viewers:
                del self._users[user.id]
                self._hold(live, {})

    def price_changed(self, quote: Quote) -> None:
        """Push it to its holders when the window closes."""
        self._changed_quotes.add(quote)
        self._prices_changed.set()

    def portfolio_changed(self, user_id: uuid.UUID | None) -> None:
        """Read the user's coins again and push them at once; None: everybody's."""
        changed = list(self._users.values()) if user_id is None else [self._users.get(user_id)]
        watching = [live for live in changed if live is not None]
        if watching:
            task = asyncio.create_task(self._reload_all(watching))
            self._reloads.add(task)
            task.add_done_callback(self._reloads.discard)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._push_prices())
            tasks.create_task(self._watch_ages())

    async def close(self) -> None:
        """Give up what is being read."""
        tasks = {*self._reloads, *self._price_loads.values()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _push_prices(self) -> None:
        while True:
            await self._prices_changed.wait()
            await asyncio.sleep(self._push_window_s)
            quotes, self._changed_quotes = self._changed_quotes, set()
            self._prices_changed.clear()
            now_ms = time.time_ns() // 1_000_000
            for quote in quotes:
                quote.check_age(now_ms, self._stale_after_ms)
            pushed = 0
            for live in set[LivePortfolio]().union(*(self._holders.get(quote, ()) for quote in quotes)):
                live.refresh()
                pushed += len(live.viewers)
                if pushed >= PUSH_AT_ONCE:
                    pushed = 0
                    await asyncio.sleep(0)

    async def _watch_ages(self) -> None:
        while True:
            await asyncio.sleep(AGE_EVERY_S)
            now_ms = time.time_ns() // 1_000_000
            for quote in list(self._holders):
                if quote.check_age(now_ms, self._stale_after_ms):
                    self.price_changed(quote)

    async def _reload_all(self, portfolios: list[LivePortfolio]) -> None:
        for live in portfolios:
            live.changes += 1
        for live in portfolios:
            while live.viewers:
                try:
                    await self._reload(live)
                    break
                except NotAuthenticated:
                    live.end()
                    break
                except DatabaseAway:
                    await asyncio.sleep(RETRY_S)

    async def _reload(self, live: LivePortfolio) -> None:
        """Read the coins again, unless a read that began after the newest change has done it.

        Raises what `load` raises.
        """
        async with live.lock:
            changes = live.changes
            if live.loaded == changes:
                return
            coins = await self._load(live.user_id)
            if not live.viewers:
                return
            self._begin_loading(self._hold(live, {coin.symbol: self._quote(coin.symbol) for coin in coins}))
            for load in {self._price_loads[quote] for quote in live.quotes.values() if quote in self._price_loads}:
                await asyncio.shield(load)  # others may wait for it too
            live.loaded = changes
            live.hold(
                [Holding(coin.quantity, live.quotes[coin.symbol]) for coin in coins if coin.symbol in live.quotes]
            )

    def _quote(self, symbol: str) -> Quote:
        quote = self._quotes.get(symbol)
        if quote is None:
            quote = self._quotes[symbol] = Quote(symbol)
        return quote

    def _begin_loading(self, quotes: list[Quote]) -> None:
        if quotes := [quote for quote in quotes if quote not in self._price_loads]:
            self._price_loads |= dict.fromkeys(quotes, asyncio.create_task(self._load_prices(quotes)))

    async def _load_prices(self, quotes: list[Quote]) -> None:
        try:
            await self.feed.load(quotes)
            now_ms = time.time_ns() // 1_000_000
            for quote in quotes:
                quote.check_age(now_ms, self._stale_after_ms)
        finally:
            for quote in quotes:
                del self._price_loads[quote]

    def _hold(self, live: LivePortfolio, quotes: dict[str, Quote]) -> list[Quote]:
        """The user holds these from now on; gives those that nobody held before."""
        new = []
        for symbol in live.quotes.keys() - quotes.keys():
            quote = live.quotes[symbol]
            self._holders[quote].discard(live)
            if not self._holders[quote]:
                del self._holders[quote]
                self.feed.unwatch(quote)
        for symbol in quotes.keys() - live.quotes.keys():
            quote = quotes[symbol]
            if quote not in self._holders:
                self._holders[quote] = set()
                self.feed.watch(quote)
                new.append(quote)
            self._holders[quote].add(live)
        live.quotes = quotes
        return new
