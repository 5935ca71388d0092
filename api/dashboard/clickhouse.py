"""ClickHouse as the dashboard needs it: reading queries on the event loop, each with bound values and an end."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError
from prometheus_client import Histogram

from api.dashboard.errors import ClickHouseAway, TableUnusable
from infra.tls import Tls

CONNECT_TIMEOUT_S = 2
QUERY_TIMEOUT_S = 5  # in ClickHouse, which then stops working on it
ANSWER_TIMEOUT_S = 8  # in all, connecting and waiting for its turn included
QUERIES_AT_ONCE = 8

# Unknown identifier, unknown table, unknown database, a type that doesn't fit.
_TABLE_CODES = {47, 60, 81, 43, 53}
_CODE_TIMEOUT = 159

SECONDS = Histogram("dashboard_query_seconds", "Time of the dashboard's queries, failed ones included", ["query"])

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Server:
    """Where ClickHouse's HTTP interface is, and who we are there."""

    host: str
    port: int
    user: str
    password: str
    tls: Tls | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


class ClickHouse:
    """A server that may be away: it is connected to when first asked, and again after each failure to."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._client: Any = None  # clickhouse-connect's AsyncClient
        self._connecting = asyncio.Lock()
        self._turns = asyncio.Semaphore(QUERIES_AT_ONCE)

    async def query(self, name: str, sql: str, parameters: Mapping[str, object]) -> Sequence[tuple[Any, ...]]:
        """The rows of a query; `{x:Type}` in it stands for `parameters["x"]`, `name` is for the metrics.

        Raises ClickHouseAway and TableUnusable.
        """
        try:
            with SECONDS.labels(name).time():
                async with asyncio.timeout(ANSWER_TIMEOUT_S), self._turns:
                    client = await self._connected()
                    rows: Sequence[tuple[Any, ...]] = (await client.query(sql, parameters=dict(parameters))).result_rows
                    return rows
        except TimeoutError as error:
            raise ClickHouseAway(f"ClickHouse at {self.server} does not answer in {ANSWER_TIMEOUT_S} s") from error
        except ClickHouseError as error:
            raise self._explained(error) from error

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def _connected(self) -> Any:
        async with self._connecting:
            if self._client is None:
                self._client = await clickhouse_connect.get_async_client(
                    host=self.server.host,
                    port=self.server.port,
                    username=self.server.user,
                    password=self.server.password,
                    compress=False,
                    **(self.server.tls.clickhouse_options() if self.server.tls else {}),
                    connect_timeout=CONNECT_TIMEOUT_S,
                    send_receive_timeout=ANSWER_TIMEOUT_S,
                    settings={"max_execution_time": QUERY_TIMEOUT_S},
                )
        return self._client

    def _explained(self, error: ClickHouseError) -> ClickHouseAway | TableUnusable:
        # Its text can name tables and settings: it goes to the log, the page gets words of ours.
        code = getattr(error, "code", None)
        log.warning("ClickHouse at %s: %s", self.server, (str(error).splitlines() or [type(error).__name__])[0][:300])
        if code in _TABLE_CODES:
            return TableUnusable("the table does not exist, or is not one of market tickers")
        if code == _CODE_TIMEOUT:
            return ClickHouseAway(f"ClickHouse at {self.server} took longer than {QUERY_TIMEOUT_S} s")
        if code is None:
            return ClickHouseAway(f"ClickHouse at {self.server} does not answer")
        return ClickHouseAway(f"ClickHouse at {self.server} refuses the query (code {code})")
