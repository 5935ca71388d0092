"""What is on a page: its rows, their neighbours, the chart, and what to say where there is nothing."""

import asyncio
import difflib
import time
from collections.abc import Callable
from dataclasses import dataclass

from api.dashboard.repository import Extent, TickerRepository
from api.dashboard.schemas import Cursor, Series, TickerRow, View

USUAL_SYMBOL = "BTCUSDT"  # charted where none is chosen, if there is such
SYMBOLS_AGE_S = 30.0
_SUGGESTIONS = 8


@dataclass(frozen=True)
class Page:
    """`older` and `newer` are places for the pages beside this one; `suggestions` are for a symbol without rows."""

    view: View
    extent: Extent
    rows: list[TickerRow]
    series: Series | None
    older: Cursor | None = None
    newer: Cursor | None = None
    suggestions: tuple[str, ...] = ()


class DashboardService:
    """Pages of one table; every method raises ClickHouseAway and TableUnusable."""

    def __init__(self, repository: TickerRepository, clock: Callable[[], float] = time.monotonic) -> None:
        self._repository = repository
        self._clock = clock
        self._symbols: list[str] = []
        self._symbols_until = float("-inf")

    async def page(self, view: View) -> Page | None:
        """The page of `view`; None where it has become the newest one (ask for that, then)."""
        extent = await self._repository.extent(view.symbol)
        if not extent.rows:
            suggestions = tuple(_like(view.symbol, await self.symbols())) if view.symbol else ()
            return Page(view, extent, [], None, suggestions=suggestions)
        page, series = await asyncio.gather(self._rows(view, extent), self._series(view, extent))
        if page is None:
            return None
        rows, older, newer = page
        return Page(view, extent, rows, series, older, newer)

    async def symbols(self) -> list[str]:
        """The table's symbols, at most half a minute old."""
        if self._clock() >= self._symbols_until:
            self._symbols = await self._repository.symbols()
            self._symbols_until = self._clock() + SYMBOLS_AGE_S if self._symbols else float("-inf")
        return self._symbols

    async def _rows(self, view: View, extent: Extent) -> tuple[list[TickerRow], Cursor | None, Cursor | None] | None:
        """The rows and the places for the older and the newer page. One row more than shown tells if there is one."""
        limit = view.limit
        if view.after:
            rows = await self._repository.newer(view.symbol, view.after, limit + 1)
            if len(rows) <= limit:
                return None
            return rows[1:], Cursor.of(rows[-1]), Cursor.of(rows[1])
        rows = await self._repository.older(view.symbol, view.before, extent.newest_ms, limit + 1)
        shown = rows[:limit]
        older = Cursor.of(shown[-1]) if len(rows) > limit else None
        newer = Cursor.of(shown[0]) if shown and view.before else None
        return shown, older, newer

    async def _series(self, view: View, extent: Extent) -> Series | None:
        symbol = view.symbol
        if not symbol:
            symbols = await self.symbols()
            symbol = USUAL_SYMBOL if USUAL_SYMBOL in symbols else next(iter(symbols), "")
            extent = await self._repository.extent(symbol)
        if not symbol or not extent.rows:
            return None
        return await self._repository.series(symbol, view.column, view.range, extent.newest_ms)


def _like(symbol: str, symbols: list[str]) -> list[str]:
    """Symbols that someone who wrote `symbol` may have meant."""
    parts = [one for one in symbols if symbol in one or one in symbol]
    close = difflib.get_close_matches(symbol, symbols, _SUGGESTIONS, cutoff=0.6)
    return list(dict.fromkeys([*parts, *close, *symbols]))[:_SUGGESTIONS]
