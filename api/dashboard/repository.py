"""The questions to the table of market tickers.

Every value is a bound parameter, the names of database, table and column too (`{x:Identifier}`).
"""

from typing import NamedTuple

from api.dashboard.clickhouse import ClickHouse
from api.dashboard.schemas import TIME_LIMIT_MS, Cursor, Point, PriceColumn, Range, Series, TickerRow

BUCKETS = 300  # of a chart, whatever its range: at most about as many points
# Buckets begin at round times, so that points stay what they are while rows arrive.
_BUCKETS_MS = [s * 1000 for s in (1, 2, 3, 5, 10, 15, 30, 60, 90, 120, 300, 600, 1200, 2400)]
MAX_SYMBOLS = 5000

_FROM = "FROM {database:Identifier}.{table:Identifier}"
_COLUMNS = """message_id, event_type, toUnixTimestamp64Milli(event_time), toUnixTimestamp64Milli(receive_time), symbol,
    close_price, open_price, high_price, low_price, change_price, change_percent"""
_OLDER = """event_time <= fromUnixTimestamp64Milli({at:Int64}) AND (event_time < fromUnixTimestamp64Milli({at:Int64})
    OR (symbol, message_id) > ({at_symbol:String}, {at_id:String}))"""
_NEWER = """event_time >= fromUnixTimestamp64Milli({at:Int64}) AND (event_time > fromUnixTimestamp64Milli({at:Int64})
    OR (symbol, message_id) < ({at_symbol:String}, {at_id:String}))"""
_SYMBOL = "symbol = {symbol:String}"
_SINCE = "event_time >= fromUnixTimestamp64Milli({edge:Int64})"
_UNTIL = "event_time <= fromUnixTimestamp64Milli({edge:Int64})"
_NEWEST_FIRST = "event_time DESC, symbol, message_id"
_OLDEST_FIRST = "event_time, symbol DESC, message_id DESC"
# The table is ordered by symbol, so the newest rows of all are spread over it: looking at a short span of time first
# leaves out nearly all of them by their index.
_SPANS_MS: tuple[int | None, ...] = (60_000, 3_600_000, None)


class Extent(NamedTuple):
    """How many rows there are, and when the newest is of (0 where there is none)."""

    rows: int
    newest_ms: int


class TickerRepository:
    """Reads one table; every method raises ClickHouseAway and TableUnusable."""

    def __init__(self, clickhouse: ClickHouse, database: str, table: str) -> None:
        self._clickhouse = clickhouse
        self._names = {"database": database, "table": table}

    async def ping(self) -> None:
        """Does ClickHouse answer us?"""
        await self._clickhouse.query("ping", "SELECT 1", {})

    async def extent(self, symbol: str = "") -> Extent:
        """Of one symbol's rows (uppercase), or of all: for all, ClickHouse knows it without reading them."""
        where = f"WHERE {_SYMBOL}" if symbol else ""
        sql = f"SELECT count(), toUnixTimestamp64Milli(max(event_time)) {_FROM} {where}"
        ((rows, newest_ms),) = await self._clickhouse.query("extent", sql, self._names | {"symbol": symbol})
        return Extent(rows, newest_ms if rows else 0)

    async def older(self, symbol: str, at: Cursor | None, newest_ms: int, limit: int) -> list[TickerRow]:
        """The newest `limit` rows up to `newest_ms`, or those after `at` in that order."""
        top = at or Cursor(newest_ms, "", "")
        for span in _SPANS_MS:
            edge_ms = None if span is None else max(0, top.event_ms - span)
            rows = await self._page(symbol, top, _OLDER, _SINCE, edge_ms, _NEWEST_FIRST, limit)
            if len(rows) == limit:
                break
        return rows

    async def newer(self, symbol: str, at: Cursor, limit: int) -> list[TickerRow]:
        """The `limit` rows right above `at`, newest first."""
        for span in _SPANS_MS:
            edge_ms = None if span is None else min(at.event_ms + span, TIME_LIMIT_MS - 1)
            rows = await self._page(symbol, at, _NEWER, _UNTIL, edge_ms, _OLDEST_FIRST, limit)
            if len(rows) == limit:
                break
        return rows[::-1]

    async def _page(
        self, symbol: str, at: Cursor, beyond: str, within: str, edge_ms: int | None, order: str, limit: int
    ) -> list[TickerRow]:
        """Rows `beyond` a place and `within` an edge, if there is one."""
        place = {"at": at.event_ms, "at_symbol": at.symbol, "at_id": at.message_id}
        parameters: dict[str, object] = {**self._names, **place, "limit": limit}
        conditions = [f"({beyond})"]
        if symbol:
            conditions.append(_SYMBOL)
            parameters["symbol"] = symbol
        if edge_ms is not None:
            conditions.append(within)
            parameters["edge"] = edge_ms
        sql = f"SELECT {_COLUMNS} {_FROM} WHERE {' AND '.join(conditions)} ORDER BY {order} LIMIT {{limit:UInt32}}"
        return [TickerRow(*row) for row in await self._clickhouse.query("rows", sql, parameters)]

    async def symbols(self) -> list[str]:
        """The symbols there are, in order."""
        sql = f"SELECT symbol {_FROM} GROUP BY symbol ORDER BY symbol LIMIT {MAX_SYMBOLS}"
        return [symbol for (symbol,) in await self._clickhouse.query("symbols", sql, self._names)]

    async def series(self, symbol: str, column: PriceColumn, span: Range, end_ms: int) -> Series | None:
        """A symbol's column over `span` up to `end_ms`, at most BUCKETS + 1 points; None where there are no rows."""
        parameters: dict[str, object] = {
            **self._names,
            "symbol": symbol,
            "column": column.value,
            "start": max(0, end_ms - span.ms + 1),
            "end": end_ms,
        }
        within = f"""{_FROM} WHERE {_SYMBOL} AND event_time >= fromUnixTimestamp64Milli({{start:Int64}})
            AND event_time <= fromUnixTimestamp64Milli({{end:Int64}})"""
        sql = f"SELECT count(), toUnixTimestamp64Milli(min(event_time)) {within}"
        ((count, start_ms),) = await self._clickhouse.query("span", sql, parameters)
        if not count:
            return None
        bucket_ms = next(bucket for bucket in _BUCKETS_MS if bucket * BUCKETS >= end_ms - start_ms)
        parameters["bucket"] = bucket_ms
        sql = f"""
            SELECT max(toUnixTimestamp64Milli(event_time)), argMax({{column:Identifier}}, (event_time, message_id)),
                min({{column:Identifier}}), max({{column:Identifier}}), count()
            {within}
            GROUP BY intDiv(toUnixTimestamp64Milli(event_time), {{bucket:Int64}}) AS bucket
            ORDER BY bucket
            LIMIT {BUCKETS + 1}"""
        rows = await self._clickhouse.query("series", sql, parameters)
        if not rows:
            return None
        points = [Point(*row[:4]) for row in rows]
        return Series(symbol, column, span, start_ms, end_ms, bucket_ms, sum(row[4] for row in rows), points)
