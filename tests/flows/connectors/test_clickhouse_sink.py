"""The sink on a real ClickHouse; Kafka only for the dead letters."""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import OperationalError

from flows.clickhouse_etl import tickers
from flows.connectors.clickhouse_sink import LARGEST_BATCH, ClickHouseSink
from flows.connectors.clickhouse_table import ClickHouseTable, Insert, Server
from flows.connectors.dead_letters import DeadLetters
from flows.connectors.json_columns import Decoded
from flows.connectors.quix import SinkBackpressureError
from infra.clickhouse.migrate import migrate
from infra.local.part import LOOPBACK, free_port
from infra.settings import split_address

DATABASE = "sink"
START_MS = 1_790_000_000_000
LANE = tickers("sink-test", "table")
COLUMNS, KEY = LANE.columns, LANE.key


class TickerRow(NamedTuple):
    message_id: str
    event_type: str
    event_time: int
    receive_time: int
    symbol: str
    close_price: int
    open_price: int
    high_price: int
    low_price: int
    change_price: int
    change_percent: int


@pytest.fixture(scope="module")
def server(clickhouse: str) -> Server:
    return Server(*split_address(clickhouse, 8123), "default", "postgres")


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    connected = server.connect()
    yield connected
    connected.close()


@pytest.fixture
def table(server: Server, client: Client) -> ClickHouseTable:
    name = f"tickers_{secrets.token_hex(4)}"
    migrate(client, DATABASE, name)
    return LossyTable(server, DATABASE, name, COLUMNS, KEY)


class LossyTable(ClickHouseTable):
    """The real table over a line that can lose the request or the answer of an insert."""

    lose: str | None = None

    def insert(self, insert: Insert) -> None:
        lost, self.lose = self.lose, None
        if lost != "request":
            super().insert(insert)
        if lost:
            raise OperationalError(f"lost the {lost}")


@dataclass(frozen=True)
class Record:
    """What the sink asks of a Kafka message."""

    content: Any

    def value(self) -> Any:
        return self.content

    def topic(self) -> str:
        return "sink-test"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return 0

    def key(self) -> bytes:
        return b"k"

    def timestamp(self) -> tuple[int, int]:
        return 1, START_MS


def row(index: int, symbol: str = "BTCUSDT", **changes: Any) -> TickerRow:
    event_time = START_MS + index * 1000
    plain = TickerRow(f"{symbol}-{event_time}", "24hrMiniTicker", event_time, event_time + 7, symbol, *[index] * 6)
    return plain._replace(**changes)


def decoded(values: Sequence[Any]) -> Decoded:
    rows = [value for value in values if value is not None]
    rejected = [(index, "no row") for index, value in enumerate(values) if value is None]
    return Decoded([list(column) for column in zip(*rows, strict=True)] or [[] for _ in COLUMNS], rejected)


def sink_to(table: ClickHouseTable, dead_letters: str = "127.0.0.1:1", **options: Any) -> ClickHouseSink:
    settings = {"batch_size": 100, "batch_timeout_s": 10.0, **options}
    return ClickHouseSink(table, DeadLetters(dead_letters), decoded, **settings)  # type: ignore[arg-type]


def add(sink: ClickHouseSink, rows: list[TickerRow | None]) -> None:
    sink.add([Record(row) for row in rows], None, START_MS, [], "sink-test", 0, 0)  # type: ignore[misc]


def stored(client: Client, table: ClickHouseTable, columns: str = "message_id") -> list[Any]:
    return client.query(f"SELECT {columns} FROM {table.name} ORDER BY event_time, symbol").result_rows


def ids(rows: list[TickerRow]) -> list[tuple[str]]:
    return [(r.message_id,) for r in rows]


def test_values_are_exact(client: Client, table: ClickHouseTable) -> None:
    extreme = row(1, "币安USDT", message_id="x" * 300, change_price=-(10**18 - 1), close_price=10**18 - 1, low_price=-1)
    sink = sink_to(table)
    add(sink, [row(0), extreme])
    sink.flush()

    columns = (
        "message_id, symbol, toUnixTimestamp64Milli(event_time), toUnixTimestamp64Milli(receive_time), close_price"
    )
    values = stored(client, table, f"{columns}, low_price, change_price")
    assert values[1] == (
        "x" * 300,
        "币安USDT",
        START_MS + 1000,
        START_MS + 1007,
        Decimal("9999999999.99999999"),
        Decimal("-0.00000001"),
        Decimal("-9999999999.99999999"),
    )


def test_the_same_key_is_stored_once(client: Client, table: ClickHouseTable) -> None:
    sink = sink_to(table)
    add(sink, [row(0), row(1), row(0)])
    sink.flush()
    add(sink, [row(1), row(2)])
    sink.flush()
    assert stored(client, table) == ids([row(0), row(1), row(2)])


def test_the_table_is_known_again_after_a_restart(client: Client, table: ClickHouseTable) -> None:
    first = sink_to(table)
    add(first, [row(i) for i in range(50)])
    first.flush()

    second = sink_to(table)
    add(second, [row(i) for i in range(30, 4000, 10)])
    second.flush()
    expected = sorted({*range(50), *range(30, 4000, 10)})
    assert stored(client, table) == ids([row(i) for i in expected])


def test_a_key_that_comes_again_hours_later(client: Client, table: ClickHouseTable) -> None:
    sink = sink_to(table)
    for index in [0, *range(3600, 40 * 3600, 3600), 0]:
        add(sink, [row(index)])
        sink.flush()
    assert len(stored(client, table)) == 40


@pytest.mark.parametrize("lost", ["request", "answer"])
def test_an_insert_without_an_answer(client: Client, table: LossyTable, lost: str) -> None:
    sink = sink_to(table)
    add(sink, [row(0)])
    sink.flush()
    table.lose = lost
    add(sink, [row(i) for i in range(1, 10)])
    with pytest.raises(SinkBackpressureError):
        sink.flush()

    # Quix Streams reads these records again, and the batch is cut elsewhere.
    add(sink, [row(1)])
    assert sink.overdue()
    sink.flush()
    add(sink, [row(i) for i in range(2, 20)])
    sink.flush()
    assert stored(client, table) == ids([row(i) for i in range(20)])


def test_partitions_that_moved_are_looked_up_anew(client: Client, table: LossyTable) -> None:
    ours, theirs = sink_to(table), sink_to(table)
    table.lose = "request"
    add(ours, [row(0), row(1)])
    with pytest.raises(SinkBackpressureError):
        ours.flush()
    ours.forget()
    add(theirs, [row(1), row(2)])
    theirs.flush()

    add(ours, [row(2), row(3)])
    ours.flush()
    assert stored(client, table) == ids([row(1), row(2), row(3)])


def test_away_and_back(client: Client, server: Server, table: ClickHouseTable) -> None:
    away = ClickHouseTable(Server(LOOPBACK, free_port(), "default", "postgres"), DATABASE, "t", COLUMNS, KEY)
    sink = sink_to(away)
    pauses = []
    for _ in range(6):
        add(sink, [row(0)])
        with pytest.raises(SinkBackpressureError) as caught:
            sink.flush()
        assert sink.size == 0
        pauses.append(caught.value.retry_after)
    assert pauses == [0.5, 1, 2, 4, 5, 5]


def test_dead_letters_that_kafka_does_not_take_hold_the_batch_back(
    client: Client, table: ClickHouseTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.connectors.dead_letters.DELIVERY_TIMEOUT_S", 1)
    sink = sink_to(table, dead_letters=f"{LOOPBACK}:{free_port()}")
    add(sink, [row(0), None])
    with pytest.raises(SinkBackpressureError):
        sink.flush()


def test_when_a_batch_is_due(table: ClickHouseTable) -> None:
    sink = sink_to(table, batch_size=3, batch_timeout_s=60)
    states = []
    for index in range(4):
        states.append((sink.full(behind=False), sink.room(behind=False), sink.room(behind=True)))
        add(sink, [row(index)])
    rest = [LARGEST_BATCH - size for size in range(4)]
    assert states == [(False, 3, rest[0]), (False, 2, rest[1]), (False, 1, rest[2]), (True, 1, rest[3])]
    assert not sink.full(behind=True)
    assert not sink.overdue()

    impatient = sink_to(table, batch_size=3, batch_timeout_s=1e-9)
    assert not impatient.overdue()
    add(impatient, [row(0)])
    assert impatient.overdue()
    impatient.forget()
    assert not impatient.overdue()
