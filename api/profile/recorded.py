"""Recorded seconds: what the ETL has stored in ClickHouse of `binance.secondstat`, the final revision of each.

Read from there and not from Kafka: a replay costs this process the closes of the user's own coins and nothing else, and
goes as far back as there is history. `tracker verify` shows that they are the seconds of the raw log.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError
from prometheus_client import Histogram

from api.profile.replay_request import Refusal
from infra.settings import Settings

CONNECT_TIMEOUT_S = 2
QUERY_TIMEOUT_S = 5  # in ClickHouse
ANSWER_TIMEOUT_S = 10  # in all
_HOUR_MS = 3_600_000
# How far back the price before a range is looked for, and how far on its first second: mostly the first span is enough.
_SPANS_MS = (_HOUR_MS, 24 * _HOUR_MS, None)

_AT = "toUnixTimestamp64Milli(timestamp)"
_FINAL = "FROM {database:Identifier}.second_stats"  # the view of the highest revisions
_REVISIONS = f"{_FINAL}_revisions"
_WHERE = """WHERE symbol IN {symbols:Array(String)} AND timestamp >= fromUnixTimestamp64Milli({begin:Int64}, 'UTC')
    AND timestamp < fromUnixTimestamp64Milli({end:Int64}, 'UTC')"""

SECONDS = Histogram("bff_replay_query_seconds", "Time of the queries of replays, failed ones included")

log = logging.getLogger(__name__)

Rows = list[bytes]  # lines: the second's start in epoch ms, the symbol, the close, with tabs between


class RecordedSeconds:
    """ClickHouse's, which may be away: every method raises Refusal then. Times are epoch ms, symbols uppercase."""

    def __init__(self, settings: Settings) -> None:
        self._host, self._port = settings.clickhouse_http
        tls = settings.tls("clickhouse")
        self._options: dict[str, Any] = {
            "username": settings.clickhouse_user,
            "password": settings.clickhouse_password.get_secret_value(),
            **(tls.clickhouse_options() if tls else {}),
        }
        self._database = settings.clickhouse_database
        self._client: Any = None  # clickhouse-connect's AsyncClient
        self._connecting = asyncio.Lock()

    async def between(self, symbols: Sequence[str], begin_ms: int, end_ms: int) -> Rows:
        """The seconds that begin in [begin_ms, end_ms), by time."""
        sql = f"SELECT {_AT}, symbol, close {_FINAL} {_WHERE} ORDER BY timestamp, symbol"
        return await self._query(sql, symbols, begin_ms, end_ms)

    async def last_before(self, symbols: Sequence[str], time_ms: int) -> Rows:
        """Each symbol's newest second that begins before this; none of those that have none."""
        found: Rows = []
        left = set(symbols)
        for span_ms in _SPANS_MS:
            if not left:
                break
            begin_ms = 0 if span_ms is None else max(0, time_ms - span_ms)
            sql = f"SELECT {_AT}, symbol, close {_FINAL} {_WHERE} ORDER BY timestamp DESC LIMIT 1 BY symbol"
            rows = await self._query(sql, sorted(left), begin_ms, time_ms)
            left -= {row.split(b"\t")[1].decode() for row in rows}
            found += rows
        return found

    async def first(self, symbols: Sequence[str], begin_ms: int, end_ms: int) -> int | None:
        """When the first second of any of them in [begin_ms, end_ms) begins."""
        for span_ms in _SPANS_MS:
            until_ms = end_ms if span_ms is None else min(end_ms, begin_ms + span_ms)
            if found := await self._extent(symbols, begin_ms, until_ms):
                return found[0]
            if until_ms == end_ms:
                break
        return None

    async def extent(self, symbols: Sequence[str]) -> tuple[int, int] | None:
        """When the first and the last second of any of them begin."""
        return await self._extent(symbols, 0, 1 << 42)

    async def _extent(self, symbols: Sequence[str], begin_ms: int, end_ms: int) -> tuple[int, int] | None:
        at = "toUnixTimestamp64Milli({}(timestamp))"
        # Revisions begin when the seconds do, so the table will do: no merging.
        sql = f"SELECT count(), {at.format('min')}, {at.format('max')} {_REVISIONS} {_WHERE}"
        (row,) = await self._query(sql, symbols, begin_ms, end_ms)
        count, first_ms, last_ms = map(int, row.split(b"\t"))
        return (first_ms, last_ms) if count else None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def _query(self, sql: str, symbols: Sequence[str], begin_ms: int, end_ms: int) -> Rows:
        parameters = {"database": self._database, "symbols": list(symbols), "begin": begin_ms, "end": end_ms}
        try:
            with SECONDS.time():
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    client = await self._connected()
                    body: bytes = await client.raw_query(sql, parameters=parameters, fmt="TSV")
        except (ClickHouseError, TimeoutError) as error:
            # Its text can name tables and settings: it goes to the log, users get words of ours.
            said = (str(error).splitlines() or [type(error).__name__])[0][:300]
            log.warning("ClickHouse at %s:%d: %s", self._host, self._port, said)
            raise Refusal("recorded seconds can't be read now; try again later") from error
        return body.split(b"\n")[:-1]

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._client is None:
                self._client = await clickhouse_connect.get_async_client(
                    host=self._host,
                    port=self._port,
                    compress=False,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    send_receive_timeout=ANSWER_TIMEOUT_S,
                    settings={"max_execution_time": QUERY_TIMEOUT_S},
                    **self._options,
                )
        return self._client
