"""Reads `second_stats` in ClickHouse: the highest revision of each second."""

from collections.abc import Collection, Iterator, Sequence
from decimal import Context, Decimal
from typing import Any

from clickhouse_connect.driver.client import Client

from flows.connectors.clickhouse_table import Server
from flows.domain.second_stat import SecondStat

_FIELDS = SecondStat._fields
_COLUMNS = ", ".join(f"toUnixTimestamp64Milli({name})" if name == "timestamp" else name for name in _FIELDS)
_STEP_MS = 600_000
_EXACT = Context(prec=77)  # the usual 28 digits would round quote volumes
_SCALES = {name: 16 if "quote" in name else 8 for name in _FIELDS}
_RANGE = (
    "symbol = {symbol:String} AND timestamp >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')"
    " AND timestamp < fromUnixTimestamp64Milli({end:Int64}, 'UTC')"
)


class SecondStatsTable:
    """Every method raises clickhouse-connect's ClickHouseError."""

    def __init__(self, server: Server, database: str) -> None:
        self._client: Client = server.connect()
        self._name = f"{database}.second_stats"

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def first_seconds(self) -> dict[str, int]:
        """Every symbol with its first second ever, in ms."""
        rows = self._query(f"SELECT symbol, toUnixTimestamp64Milli(min(timestamp)) FROM {self._name} GROUP BY symbol")  # noqa: S608
        return {str(symbol): int(first) for symbol, first in rows}

    def seconds(self, symbol: str, start_ms: int, end_ms: int) -> dict[int, SecondStat]:
        """The SecondStats of [start_ms, end_ms), by their start."""
        rows = self._query(
            f"SELECT {_COLUMNS} FROM {self._name} WHERE {_RANGE}",  # noqa: S608
            {"symbol": symbol, "start": start_ms, "end": end_ms},
        )
        found = [SecondStat(*map(_units, _FIELDS, row)) for row in rows]
        return {stat.timestamp: stat for stat in found}

    def states(self, start_ms: int, end_ms: int, symbols: Collection[str] = ()) -> Iterator[SecondStat]:
        """The SecondStats of [start_ms, end_ms) of these symbols, or of all; a few minutes at a time."""
        span = _RANGE.partition(" AND ")[2] + (" AND symbol IN {symbols:Array(String)}" if symbols else "")
        for at in range(start_ms, end_ms, _STEP_MS):
            asked = {"start": at, "end": min(at + _STEP_MS, end_ms), "symbols": sorted(symbols)}
            for row in self._query(f"SELECT {_COLUMNS} FROM {self._name} WHERE {span}", asked):  # noqa: S608
                yield SecondStat(*map(_units, _FIELDS, row))

    def around(self, symbol: str, first_id: int, last_id: int) -> tuple[int | None, int | None]:
        """The last second with a trade before these aggregate ids and the first with one after them, in ms."""
        text = f"""
            SELECT maxOrNullIf(toUnixTimestamp64Milli(timestamp), first_trade_id < {{first:Int64}}),
                minOrNullIf(toUnixTimestamp64Milli(timestamp), last_trade_id > {{last:Int64}})
            FROM {self._name} WHERE symbol = {{symbol:String}}"""  # noqa: S608 - a name of ours
        ((before, after),) = self._query(text, {"symbol": symbol, "first": first_id, "last": last_id})
        return before, after

    def neighbours(self, symbol: str, first_ms: int, last_ms: int) -> tuple[int | None, int | None]:
        """The last second before `first_ms` and the first one after `last_ms`, in ms."""
        text = f"""
            SELECT maxOrNullIf(at, at < {{first:Int64}}), minOrNullIf(at, at > {{last:Int64}})
            FROM (SELECT toUnixTimestamp64Milli(timestamp) AS at FROM {self._name} WHERE symbol = {{symbol:String}})"""  # noqa: S608 - a name of ours
        ((before, after),) = self._query(text, {"symbol": symbol, "first": first_ms, "last": last_ms})
        return before, after

    def _query(self, text: str, parameters: dict[str, Any] | None = None) -> Sequence[Sequence[Any]]:
        rows: Sequence[Sequence[Any]] = self._client.query(text, parameters=parameters).result_rows
        return rows


def _units(name: str, value: Any) -> Any:
    return int(value.scaleb(_SCALES[name], _EXACT)) if isinstance(value, Decimal) else value
