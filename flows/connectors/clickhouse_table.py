"""A ClickHouse table over HTTP, as the ETL needs it: idempotent inserts, and what is already there."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from flows.connectors.clickhouse_native import Column, native_block
from flows.connectors.seen import SLICE_MS, Key
from infra.tls import Tls

CONNECT_TIMEOUT_S = 3
# An insert takes well under a second; of one that takes longer the outcome is unknown, and it is sent again.
ANSWER_TIMEOUT_S = 10
SLICES_A_QUERY = 500  # parameters travel in the URL


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

    def connect(self) -> Client:
        """A new client. Raises clickhouse-connect's OperationalError while the server is away."""
        return clickhouse_connect.get_client(
            host=self.host,
            port=self.port,
            username=self.user,
            password=self.password,
            autogenerate_session_id=False,  # a session takes one query at a time
            compress=False,
            **(self.tls.clickhouse_options() if self.tls else {}),
            connect_timeout=CONNECT_TIMEOUT_S,
            send_receive_timeout=ANSWER_TIMEOUT_S,
        )


@dataclass(frozen=True)
class Insert:
    """Rows as a Native block. The same rows always have the same token."""

    block: bytes
    rows: int
    newest_ms: int  # the greatest time in their keys
    keys: Sequence[Key]  # where they are to be recognised

    @property
    def token(self) -> str:
        """ClickHouse's `insert_deduplication_token`: an insert that comes again changes nothing."""
        return hashlib.blake2b(self.block, digest_size=32).hexdigest()


class ClickHouseTable:
    """A MergeTree table with `non_replicated_deduplication_window` set; its rows are known by (text, DateTime64(3)).

    In a `replacing` one (ReplacingMergeTree) a row that is stored twice still reads as one.
    Every method raises clickhouse-connect's ClickHouseError when the server is away or refuses.
    """

    def __init__(
        self,
        server: Server,
        database: str,
        table: str,
        columns: Sequence[Column],
        key: tuple[str, str],
        *,
        replacing: bool = False,
    ) -> None:
        self.server = server
        self.replacing = replacing
        self.name = f"{database}.{table}"
        self._columns = columns
        self._key = key
        self._key_at = [[column.name for column in columns].index(name) for name in key]
        self._client: Client | None = None

    def keys(self, data: Sequence[Sequence[Any]]) -> list[Key]:
        """The keys of rows that are given by columns."""
        return list(zip(*(data[at] for at in self._key_at), strict=True))

    def insert_of(self, data: Sequence[Sequence[Any]], keys: Sequence[Key] = ()) -> Insert:
        """The insert of rows, at least one, that are given by columns."""
        times = data[self._key_at[1]]
        return Insert(native_block(self._columns, data), len(times), max(times), keys)

    def insert(self, insert: Insert) -> None:
        """Store the rows once, however often this is called with them."""
        self._connected().raw_insert(
            self.name,
            column_names=[column.name for column in self._columns],
            insert_block=insert.block,
            fmt="Native",
            settings={"insert_deduplicate": 1, "insert_deduplication_token": insert.token, "async_insert": 0},
        )

    def times(self, slices: Collection[int]) -> Iterable[tuple[str, list[int]]]:
        """For each name, the times (ms) of its rows within slices of SLICE_MS."""
        ordered = sorted(slices)
        for at in range(0, len(ordered), SLICES_A_QUERY):
            yield from self._times(ordered[at : at + SLICES_A_QUERY])

    def _times(self, slices: Sequence[int]) -> Iterable[tuple[str, list[int]]]:
        name, time = self._key
        text = f"""
            SELECT {name}, groupArray(toUnixTimestamp64Milli({time}))
            FROM {self.name}
            WHERE {time} >= fromUnixTimestamp64Milli({{first:Int64}})
              AND {time} < fromUnixTimestamp64Milli({{last:Int64}})
              AND intDiv(toUnixTimestamp64Milli({time}), {SLICE_MS}) IN {{slices:Array(Int64)}}
            GROUP BY {name}"""  # noqa: S608 - names of ours
        span = {"first": slices[0] * SLICE_MS, "last": (slices[-1] + 1) * SLICE_MS}
        rows = self._connected().query(text, parameters={**span, "slices": slices}).result_rows
        return ((str(found), list(times)) for found, times in rows)

    def running_inserts(self) -> set[str]:
        """The ids of inserts into this table that the server executes at this moment."""
        rows = self._connected().query(
            "SELECT query_id FROM system.processes WHERE query_kind = 'Insert' AND position(query, {table:String}) > 0",
            parameters={"table": self.name},
        )
        return {str(query_id) for (query_id,) in rows.result_rows}

    def _connected(self) -> Client:
        if self._client is None:
            self._client = self.server.connect()
        return self._client
