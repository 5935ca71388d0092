"""Minitickers and SecondStats from Kafka into ClickHouse: the ETL that has fallen behind, as it catches up.

The records wait in Kafka when the ETL's process starts; the rate is from its first insert to its last, with its
commits. Peers in the same run, of one table each and without Kafka: clickhouse-connect's ordinary `insert` in batches
of BATCH_SIZE (100) and of 10,000 rows; and, as the ceiling, blocks in ClickHouse's Native format that were made
beforehand.
"""

import os
import random
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer

from bench.harness import Figure
from flows.channels import MINITICKER, PARTITIONER, Topic, create_topics
from infra.local.clickhouse import clickhouse
from infra.local.kafka import kafka
from infra.local.part import LOOPBACK, Part, free_port, spawn, stop, wait_ready

START_MS = 1_790_000_000_000
SYMBOLS = [f"C{number}USDT" for number in range(500)]
ROWS = int(os.environ.get("BENCH_ETL_ROWS", "1000000"))
PEER_ROWS = 20_000
DEADLINE_S = 200.0


def minitickers(rows: int) -> Iterator[tuple[str, bytes]]:
    """(symbol, value) of `binance.miniticker`: each symbol once a second."""
    dice = random.Random(1)  # noqa: S311
    prices = {symbol: dice.randrange(10**6, 10**12) for symbol in SYMBOLS}
    for index in range(rows):
        symbol, event_time = SYMBOLS[index % len(SYMBOLS)], START_MS + index // len(SYMBOLS) * 1000
        price = prices[symbol] = max(1000, prices[symbol] + dice.randrange(-900, 901))
        text = f"{price // 10**8}.{price % 10**8:08d}"
        yield (
            symbol,
            f'{{"message_id":"{symbol}-{event_time}","event_type":"24hrMiniTicker","event_time":{event_time},'
            f'"receive_time":{event_time + 9},"symbol":"{symbol}","close_price":"{text}","open_price":"1.00000000",'
            f'"high_price":"{text}","low_price":"0.50000000","change_price":"{text}","change_percent":"-0.12345678"}}'
            "".encode(),
        )


def main_peers(client: Client, table: str, rows: Sequence[bytes]) -> dict[str, float]:
    raise NotImplementedError


def _produce(brokers: str, topic: Topic, records: Iterable[tuple[str, bytes]]) -> None:
    producer = Producer(
        {"bootstrap.servers": brokers, "partitioner": PARTITIONER, "linger.ms": 20, "compression.type": "lz4"}
    )
    for symbol, value in records:
        while True:
            try:
                producer.produce(topic.name, value, symbol)
                break
            except BufferError:
                producer.poll(0.1)
    producer.flush(60)


def _metric(port: int, name: str) -> float:
    try:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
    except OSError:
        return 0.0
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"clickhouse_etl_{name}"))


def run() -> list[Figure]:
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-etl-", ignore_cleanup_errors=True)))
        brokers_port, http = free_port(), free_port()
        for part in (kafka(home / "kafka", brokers_port), clickhouse(home / "clickhouse", http)):
            part.prepare()
            process = spawn(part, home / f"{part.name}.log")
            stack.callback(stop, part, process)
            wait_ready(part, process)
        brokers = f"{LOOPBACK}:{brokers_port}"
        create_topics(brokers, [MINITICKER])
        t = time.monotonic()
        _produce(brokers, MINITICKER, minitickers(ROWS))
        print("produced", time.monotonic() - t)
        port = free_port()
        etl = Part(
            "etl",
            [sys.executable, *os.environ.get("PROF", "").split(), "-m", "flows.clickhouse_etl"],
            env={"BROKERS": brokers, "CLICKHOUSE_ADDR": f"{LOOPBACK}:{http}", "HEALTH_PORT": str(port)},
        )
        started = time.monotonic()
        process = spawn(etl, home / "etl.log")
        first = None
        while True:
            done = _metric(port, "rows_inserted_total")
            if done and first is None:
                first = (time.monotonic(), done)
            if done >= ROWS:
                break
            assert time.monotonic() < started + DEADLINE_S, (home / "etl.log").read_text()
            time.sleep(0.05)
        end = time.monotonic()
        print(
            "rate",
            (ROWS - first[1]) / (end - first[0]),
            "whole",
            ROWS / (end - started),
            "first after",
            first[0] - started,
            "batches",
            _metric(port, "batches_total"),
        )
        import psutil

        print(psutil.Process(process.pid).cpu_times())
        stop(etl, process)
        print((home / "etl.log").read_text()[-300:])
    return []


if __name__ == "__main__":
    run()
