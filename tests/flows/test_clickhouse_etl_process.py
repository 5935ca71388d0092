"""The running ETL between a real Kafka and a real ClickHouse."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Message
from etl_process import START_MS, Etl, broker_of_the_module, message, poll_until, second  # noqa: F401 - a fixture

from flows.channels import SECONDSTAT


@pytest.fixture(scope="module")
def etl(kafka: str, clickhouse: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Etl]:
    """One process for the tests that do not stop it."""
    running = Etl(kafka, clickhouse, tmp_path_factory.mktemp("etl"), BATCH_SIZE="10", BATCH_TIMEOUT="1500ms")
    running.start()
    poll_until(running.ready, "ready")
    yield running
    running.close()


def ids_of(etl: Etl, symbol: str) -> list[str]:
    return [found for found in etl.message_ids() if found.startswith(f"{symbol}-")]


def id_of(value: bytes) -> str:
    return str(json.loads(value)["message_id"])


def test_by_size_and_by_time(etl: Etl) -> None:
    before = etl.metric("batches_total")
    values = [message(i, "SIZE") for i in range(25)]
    etl.produce(values)
    poll_until(lambda: etl.metric("batches_total") == before + 2, "two full batches")
    assert len(ids_of(etl, "SIZE")) == 20
    poll_until(lambda: etl.metric("batches_total") == before + 3, "what is left, by time")
    assert ids_of(etl, "SIZE") == sorted(map(id_of, values))
    poll_until(lambda: etl.lag() == 0, "offsets committed")


def test_twice_in_the_topic_once_in_the_table(etl: Etl) -> None:
    values = [message(i, "TWICE") for i in range(20)]
    duplicates = etl.metric("duplicates_total")
    etl.produce(values, partition=1)
    etl.produce(values[5:15], partition=1)
    poll_until(lambda: etl.metric("duplicates_total") == duplicates + 10, "duplicates counted")
    assert ids_of(etl, "TWICE") == sorted(map(id_of, values))


def test_poison_goes_to_the_dlq(etl: Etl) -> None:
    poison = [b"{", b"[]", None, message(1, "BAD", close_price="1.123456789"), message(2, "BAD", high_price=5)]
    etl.produce([message(0, "GOOD"), *poison, message(1, "GOOD")], partition=2)
    poll_until(lambda: etl.metric("dead_letters_total") == len(poison), "dead letters")
    poll_until(lambda: etl.lag() == 0, "offsets committed")
    assert len(ids_of(etl, "GOOD")) == 2
    assert ids_of(etl, "BAD") == []

    reader = Consumer({"bootstrap.servers": etl.kafka, "group.id": "dlq", "auto.offset.reset": "earliest"})
    reader.subscribe([etl.topic.dlq.name])
    letters: list[Message] = []
    poll_until(lambda: letters.extend(reader.consume(10, 0.1)) or len(letters) >= len(poison), "dead letters")
    reader.close()
    assert [letter.value() for letter in letters] == poison
    offsets = []
    for letter in letters:
        headers = dict(letter.headers())
        assert headers["source_topic"] == etl.topic.name.encode()
        assert headers["source_partition"] == b"2"
        assert headers["reason"]
        offsets.append(int(headers["source_offset"]))
    assert offsets == list(range(offsets[0], offsets[0] + len(poison)))


def test_sigterm_stores_what_is_there(kafka: str, clickhouse: str, tmp_path: Path) -> None:
    etl = Etl(kafka, clickhouse, tmp_path, BATCH_TIMEOUT="1h")
    etl.produce(message(i) for i in range(150))
    etl.start()
    try:
        poll_until(lambda: etl.count() == 100 and etl.metric("waiting_records") == 50, "a full batch, and a half read")
        assert etl.end() == 0
    finally:
        etl.close()
    assert etl.count() == 150
    assert etl.lag() == 0


def test_a_batch_whose_partitions_move_is_read_again(kafka: str, clickhouse: str, tmp_path: Path) -> None:
    """Who gives partitions up stores nothing then: it could take longer than they are its own."""
    first = Etl(kafka, clickhouse, tmp_path, BATCH_SIZE="1000", BATCH_TIMEOUT="90s")
    group = {"KAFKA_TOPIC": first.topic.name, "KAFKA_GROUP_ID": first.topic.name}
    names = {"CLICKHOUSE_DATABASE": first.database, "CLICKHOUSE_TABLE": first.database}
    second = Etl(kafka, clickhouse, tmp_path, BATCH_SIZE="1000", BATCH_TIMEOUT="500ms", **group, **names)
    try:
        first.start()
        poll_until(first.ready, "ready")
        values = [message(i, "MOVED") for i in range(30)]
        first.produce(values)
        poll_until(lambda: first.metric("waiting_records") == 30, "a batch that waits")
        second.start()
        poll_until(first.count, "rows of the other")
        assert first.metric("rows_inserted_total") == 0
        assert first.end() == 0
        poll_until(lambda: len(ids_of(first, "MOVED")) == 30, "all rows")
        assert ids_of(first, "MOVED") == sorted(map(id_of, values))
    finally:
        first.close()
        second.close()


def test_native_port_is_read_as_http(kafka: str, tmp_path: Path) -> None:
    etl = Etl(kafka, "127.0.0.1:9000", tmp_path)
    etl.start()
    try:
        poll_until(lambda: "native port" in etl.log.read_text(), "a warning")
        poll_until(lambda: etl.get("/livez")[0] == 200, "alive")  # it warns before it listens
        assert etl.end() == 0  # while it waits for ClickHouse
    finally:
        etl.close()


def test_each_topic_has_its_own_batches(kafka: str, clickhouse: str, tmp_path: Path) -> None:
    etl = Etl(kafka, clickhouse, tmp_path, BATCH_SIZE="10", BATCH_TIMEOUT="1h")
    etl.start()
    try:
        poll_until(etl.ready, "ready")
        etl.produce(message(i) for i in range(15))
        poll_until(lambda: etl.count() == 10 and etl.metric("waiting_records") == 5, "a full batch, and a half read")
        stored = etl.metric("rows_inserted_total", "second_stats_revisions")
        etl.produce_stats(second(i, symbol="LANESUSDT") for i in range(60))
        poll_until(
            lambda: etl.metric("rows_inserted_total", "second_stats_revisions") >= stored + 40, "batches of seconds"
        )
        assert (etl.count(), etl.metric("waiting_records"), etl.lag()) == (10, 5, 5)
        assert etl.end() == 0
    finally:
        etl.close()
    assert (etl.count(), etl.lag(), etl.lag(SECONDSTAT)) == (15, 0, 0)


def test_the_highest_revision_is_what_is_read(etl: Etl) -> None:
    etl.produce_stats(second(i, revision, "REVUSDT") for revision in (0, 1, 2) for i in range(5))
    etl.produce_stats([second(0, 1, "REVUSDT"), second(7, 0, "REVUSDT")])
    name = f"{etl.database}.second_stats"

    def found() -> list[tuple[int, int]]:
        rows = etl.select("symbol, toUnixTimestamp64Milli(timestamp), revision", name)
        return sorted((at, revision) for symbol, at, revision in rows if symbol == "REVUSDT")

    expected = [*((START_MS + i * 1000, 2) for i in range(5)), (START_MS + 7000, 0)]
    poll_until(lambda: found() == expected, "the highest revisions")
    poll_until(lambda: etl.lag(SECONDSTAT) == 0, "offsets committed")


FAILING = """
from flows import drain
from flows.clickhouse_etl import run

class Fails:
    def run(self):
        raise RuntimeError("broken")

class Waits:
    def run(self):
        while not drain.draining():
            drain.wait(0.1)
        print("stopped in order")

drain.install()
run([Waits(), Fails()])
"""


def test_a_lane_that_fails_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, "stopped in order\n")
    assert "RuntimeError: broken" in done.stderr


FAILING_BESIDE_ONE_THAT_HANGS = """
import time
from flows import drain
from flows.clickhouse_etl import run

class Fails:
    def run(self):
        raise RuntimeError("broken")

class Hangs:
    def run(self):
        time.sleep(60)

drain.HINT_S, drain.LIMIT_S = 1.2, 2.0
drain.install(code_at_limit=0)
drain.draining()
run([Hangs(), Fails()])
"""


def test_a_lane_that_fails_beside_one_that_hangs_is_no_success() -> None:
    command = [sys.executable, "-c", FAILING_BESIDE_ONE_THAT_HANGS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 1
    assert "RuntimeError: broken" in done.stderr
