"""The ETL as its users run it, `python -m flows.clickhouse_etl`, with a topic and a table of its own."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import Consumer, Producer, TopicPartition

from flows.channels import MINITICKER, SECONDSTAT, Topic, create_topics
from flows.domain.second_stat import SecondStat
from infra.local.kafka import kafka as kafka_part
from infra.local.part import LOOPBACK, free_port, spawn, stop, wait_ready
from infra.settings import split_address

START_MS = 1_790_000_000_000


def message(index: int, symbol: str = "BTCUSDT", **changes: Any) -> bytes:
    """The `index`-th KafkaMsg of a symbol."""
    event_time = START_MS + index * 1000
    prices = ("close_price", "open_price", "high_price", "low_price", "change_price", "change_percent")
    fields = {
        "message_id": f"{symbol}-{event_time}",
        "event_type": "24hrMiniTicker",
        "event_time": event_time,
        "receive_time": event_time + 7,
        "symbol": symbol,
        **dict.fromkeys(prices, f"{index}.00000001"),
    }
    return json.dumps({**fields, **changes}).encode()


def second(index: int, revision: int = 0, symbol: str = "BTCUSDT") -> SecondStat:
    """A revision of the `index`-th SecondStat of a symbol, with the revision in its volumes."""
    units = index * 100 + revision
    return SecondStat(symbol, START_MS + index * 1000, *[units] * 5, units, 1, 0, 0, index, index, revision)


def poll_until(condition: Callable[[], Any], what: str, seconds: float = 40) -> Any:
    """The first truthy value of `condition()`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds} s: {what}")


@pytest.fixture(scope="module", name="kafka")
def broker_of_the_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker of the module's own: the ETL reads all of `binance.secondstat`, whoever wrote it."""
    directory = tmp_path_factory.mktemp("kafka")
    port = free_port()
    part = kafka_part(directory / "data", port)
    part.prepare()
    process = spawn(part, directory / "log")
    try:
        wait_ready(part, process)
        yield f"{LOOPBACK}:{port}"
    finally:
        stop(part, process)


class Etl:
    """One consumer group with one process at a time."""

    def __init__(self, kafka: str, clickhouse: str, directory: Path, **environment: str) -> None:
        self.kafka, self.clickhouse = kafka, clickhouse
        name = f"etl_{secrets.token_hex(4)}"
        self.topic = Topic(name, MINITICKER.partitions, MINITICKER.config)
        self.database = name
        self.table = f"{name}.{name}"
        self.log = directory / f"{name}.log"
        self._port = free_port()
        self._environment = {
            **os.environ,
            "BROKERS": kafka,
            "KAFKA_TOPIC": name,
            "KAFKA_GROUP_ID": name,
            "CLICKHOUSE_ADDR": clickhouse,
            "CLICKHOUSE_DATABASE": name,
            "CLICKHOUSE_TABLE": name,
            "HEALTH_PORT": str(self._port),
            **environment,
        }
        self.process: subprocess.Popen[bytes] | None = None
        create_topics(kafka, [self.topic, SECONDSTAT])

    def start(self) -> None:
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "flows.clickhouse_etl"]
            self.process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def kill(self) -> None:
        """kill -9."""
        self.end(signal.SIGKILL)

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """The exit code after this signal."""
        assert self.process is not None
        self.process.send_signal(how)
        return self.process.wait(20)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def produce(self, values: Iterable[bytes | None], partition: int | None = None) -> None:
        producer = Producer({"bootstrap.servers": self.kafka, "linger.ms": 5})
        for index, value in enumerate(values):
            producer.produce(self.topic.name, value, b"k", partition=index % 3 if partition is None else partition)
        assert producer.flush(20) == 0

    def get(self, path: str) -> tuple[int, str]:
        """(status, body), 0 while nothing listens."""
        try:
            with urllib.request.urlopen(f"http://{LOOPBACK}:{self._port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def ready(self) -> bool:
        return self.get("/readyz")[0] == 200

    def metric(self, name: str, table: str = "") -> float:
        """Of the table of minitickers, or of another."""
        lines = self.get("/metrics")[1].splitlines()
        whole = f"{self.database}.{table}" if table else self.table
        of_table = f'clickhouse_etl_{name}{{table="{whole}"}} '
        return sum(float(line.removeprefix(of_table)) for line in lines if line.startswith(of_table))

    def lag(self, topic: Topic | None = None) -> int:
        """Records whose offsets are not committed."""
        topic = topic or self.topic
        consumer = Consumer({"bootstrap.servers": self.kafka, "group.id": self.topic.name})
        partitions = consumer.committed([TopicPartition(topic.name, p) for p in range(topic.partitions)], timeout=10)
        lag = sum(consumer.get_watermark_offsets(p, timeout=10)[1] - max(p.offset, 0) for p in partitions)
        consumer.close()
        return lag

    def connect(self) -> Client:
        host, port = split_address(self.clickhouse, 8123)
        return clickhouse_connect.get_client(
            host=host, port=port, username="default", password="postgres", autogenerate_session_id=False
        )

    def produce_stats(self, stats: Iterable[SecondStat]) -> None:
        """As flows.second_stats does, but for the partitioner."""
        producer = Producer({"bootstrap.servers": self.kafka, "linger.ms": 5})
        for stat in stats:
            producer.produce(SECONDSTAT.name, stat.to_json(), stat.symbol.encode(), timestamp=stat.timestamp)
        assert producer.flush(20) == 0

    def stats(self) -> list[tuple[int, int, Decimal]]:
        """(ms, revision, quote volume) of the view `second_stats`, in order of time."""
        what = "toUnixTimestamp64Milli(timestamp), revision, quote_volume"
        return sorted(self.select(what, f"{self.database}.second_stats"))

    def select(self, what: str, table: str = "") -> list[Any]:
        """Rows of the table; none while there is no table."""
        table = table or self.table
        client = self.connect()
        try:
            if not client.command(f"EXISTS TABLE {table}"):
                return []
            return list(client.query(f"SELECT {what} FROM {table}").result_rows)
        finally:
            client.close()

    def count(self) -> int:
        rows = self.select("count()")
        return int(rows[0][0]) if rows else 0

    def message_ids(self) -> list[str]:
        return sorted(message_id for (message_id,) in self.select("message_id"))
