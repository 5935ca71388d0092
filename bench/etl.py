"""Kafka to ClickHouse: the ETL's process catching up with records that waited, and plain inserts beside it.

The rate is from the first rows stored to the last, by the process's own counter; offsets are committed on the way. The
peers have neither Kafka nor JSON before them: clickhouse-connect's ordinary `insert` of the same rows in batches of
BATCH_SIZE (100), and, as the ceiling, blocks in ClickHouse's Native format that were made beforehand.
"""

import os
import random
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Producer

from bench.harness import Figure
from flows.channels import PARTITIONER, create_topics
from flows.clickhouse_etl import SECOND_STATS, Lane, tickers
from flows.connectors.clickhouse_native import native_block
from flows.connectors.clickhouse_table import Server
from flows.connectors.json_columns import JsonColumns
from flows.domain.second_stat import SecondStat
from infra.clickhouse.migrate import migrate
from infra.local.clickhouse import clickhouse
from infra.local.kafka import kafka
from infra.local.part import LOOPBACK, Part, free_port, spawn, stop, wait_ready

START_MS = 1_790_000_000_000
SYMBOLS = [f"C{number}USDT" for number in range(500)]
ROWS = int(os.environ.get("BENCH_ETL_ROWS", "1000000"))
PLAIN_ROWS, NATIVE_ROWS = 10_000, 20_000
DEADLINE_S = 120.0
DATABASE, TABLE = "crypto", "market_tickers"
TICKERS = tickers("binance.miniticker", TABLE)


def minitickers(rows: int) -> Iterator[bytes]:
    """Values of `binance.miniticker`: each of 500 symbols once a second, its price a random walk."""
    dice = random.Random(1)  # noqa: S311
    prices = [dice.randrange(10**6, 10**12) for _ in SYMBOLS]
    for index in range(rows):
        at = index % len(SYMBOLS)
        symbol, time_ms = SYMBOLS[at], START_MS + index // len(SYMBOLS) * 1000
        price = prices[at] = max(1000, prices[at] + dice.randrange(-900, 901))
        text = f"{price // 10**8}.{price % 10**8:08d}"
        yield (
            f'{{"message_id":"{symbol}-{time_ms}","event_type":"24hrMiniTicker","event_time":{time_ms},'
            f'"receive_time":{time_ms + 9},"symbol":"{symbol}","close_price":"{text}","open_price":"1.00000000",'
            f'"high_price":"{text}","low_price":"0.50000000","change_price":"{text}","change_percent":"-0.12345678"}}'
        ).encode()


def second_stats(rows: int) -> Iterator[bytes]:
    """Values of `binance.secondstat`, likewise."""
    dice = random.Random(2)  # noqa: S311
    for index in range(rows):
        price, volume = dice.randrange(10**6, 10**12), dice.randrange(10**10)
        time_ms, quote = START_MS + index // len(SYMBOLS) * 1000, price * volume
        prices = (price, price + 9, price - 9, price)
        stat = SecondStat(
            SYMBOLS[index % len(SYMBOLS)], time_ms, *prices, volume, quote, 7, volume, quote, index, index, 0
        )
        yield stat.to_json()


def _produce(brokers: str, topic: str, values: Iterator[bytes]) -> None:
    producer = Producer(
        {"bootstrap.servers": brokers, "partitioner": PARTITIONER, "linger.ms": 20, "compression.type": "lz4"}
    )
    for index, value in enumerate(values):
        if index % 10_000 == 0:
            producer.flush(60)
        producer.produce(topic, value, SYMBOLS[index % len(SYMBOLS)])
    producer.flush(60)


def _stored(port: int, table: str) -> float:
    """Rows that the ETL has stored in a table, by its metrics."""
    name = f'clickhouse_etl_rows_inserted_total{{table="{DATABASE}.{table}"}} '
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))


def _catch_up(home: Path, brokers: str, server: Server, lane: Lane, rows: int) -> tuple[float, float]:
    """Rows a second, and a second of CPU time, of the ETL's process, as its users run it, over a lane's topic."""
    port = free_port()
    environment = {"BROKERS": brokers, "CLICKHOUSE_ADDR": str(server), "HEALTH_PORT": str(port)}
    part = Part("etl", [sys.executable, "-m", "flows.clickhouse_etl"], env=environment)
    process = spawn(part, home / "etl.log")
    try:
        deadline = time.monotonic() + DEADLINE_S
        first = 0.0
        while not first and time.monotonic() < deadline:
            time.sleep(0.01)
            first = _stored(port, lane.table)
        began, cpu_before_s = time.monotonic(), _cpu_s(process.pid)
        while (stored := _stored(port, lane.table)) < rows:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{stored:.0f} of {rows} rows in {DEADLINE_S:.0f} s, see {home / 'etl.log'}")
            time.sleep(0.1)  # each look costs the process some CPU
        done = rows - first
        return done / (time.monotonic() - began), done / (_cpu_s(process.pid) - cpu_before_s)
    finally:
        stop(part, process)


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def _plain(server: Server, lane: Lane, data: Sequence[Sequence[Any]], batch: int) -> float:
    """Rows a second of clickhouse-connect's `insert`, with the types that its users have."""
    client = server.connect()
    rows = [
        [_python_value(kind, value) for kind, value in zip(lane.types, row, strict=True)]
        for row in zip(*data, strict=True)
    ]
    began = time.monotonic()
    for at in range(0, len(rows), batch):
        client.insert(f"{DATABASE}.{lane.table}", rows[at : at + batch], [column.name for column in lane.columns])
    return len(rows) / (time.monotonic() - began)


def _python_value(kind: str, value: Any) -> Any:
    if kind.startswith("DateTime64"):
        return datetime.fromtimestamp(value / 1000, UTC)
    return Decimal(value).scaleb(-8) if kind.startswith("Decimal") else value


def _native(server: Server, lane: Lane, data: Sequence[Sequence[Any]], times: int) -> float:
    """Rows a second of ready-made blocks."""
    client, columns = server.connect(), lane.columns
    block, names = native_block(columns, data), [column.name for column in columns]
    began = time.monotonic()
    for _ in range(times):
        # The same block again is stored again.
        client.raw_insert(f"{DATABASE}.{lane.table}", names, block, fmt="Native", settings={"insert_deduplicate": 0})
    return times * len(data[0]) / (time.monotonic() - began)


def run() -> list[Figure]:
    """Both lanes, one after the other, each beside its peers on the same servers."""
    figures = []
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-etl-", ignore_cleanup_errors=True)))
        ports = free_port(), free_port()
        for part in (kafka(home / "kafka", ports[0]), clickhouse(home / "clickhouse", ports[1])):
            part.prepare()
            process = spawn(part, home / f"{part.name}.log")
            stack.callback(stop, part, process)
            wait_ready(part, process)
        brokers, server = f"{LOOPBACK}:{ports[0]}", Server(LOOPBACK, ports[1], "default", "postgres")
        migrate(server.connect(), DATABASE, TABLE)
        for name, lane, values in (
            ("minitickers", TICKERS, minitickers),
            ("SecondStats", SECOND_STATS, second_stats),
        ):
            create_topics(brokers, [lane.topic])
            _produce(brokers, lane.topic.name, values(ROWS))
            data = JsonColumns(lane.message, lane.columns).decode(list(values(NATIVE_ROWS))).columns
            etl, by_cpu = _catch_up(home, brokers, server, lane, ROWS)
            plain = _plain(server, lane, [column[:PLAIN_ROWS] for column in data], 100)
            native = _native(server, lane, data, 20)
            figures += [
                Figure(f"{name}: ETL behind", etl, "rows/s", "clickhouse-connect, batches of 100", etl / plain),
                Figure(f"{name}: share of the ceiling", etl, "rows/s", "ready-made Native blocks", etl / native),
                Figure(f"{name}: ETL behind, a CPU second", by_cpu, "rows"),
                Figure(f"{name}: clickhouse-connect, batches of 100", plain, "rows/s"),
                Figure(f"{name}: ready-made Native blocks of 20,000", native, "rows/s"),
            ]
    return figures
