"""Rows neither lost nor doubled, whatever is killed."""

import json
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from etl_process import Etl, broker_of_the_module, message, poll_until, second  # noqa: F401 - a fixture

from flows.channels import SECONDSTAT
from infra.local.clickhouse import clickhouse as clickhouse_part
from infra.local.kafka import kafka as kafka_part
from infra.local.part import LOOPBACK, Part, free_port, spawn, stop, wait_ready

pytestmark = pytest.mark.faults


def expected(values: list[bytes]) -> list[str]:
    return sorted({json.loads(value)["message_id"] for value in values})


class Server:
    """A store of the test's own, to be killed."""

    def __init__(self, part: Part, log: Path) -> None:
        self._part, self._log = part, log
        self.start()

    def start(self) -> None:
        self._part.prepare()
        self._process = spawn(self._part, self._log)
        wait_ready(self._part, self._process)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def hang(self) -> None:
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        stop(self._part, self._process)


@pytest.fixture
def own_clickhouse(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    port = free_port()
    server = Server(clickhouse_part(tmp_path / "clickhouse", port), tmp_path / "clickhouse.log")
    yield server, f"{LOOPBACK}:{port}"
    server.close()


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[tuple[Server, str]]:
    port = free_port()
    server = Server(kafka_part(tmp_path / "kafka", port), tmp_path / "kafka.log")
    yield server, f"{LOOPBACK}:{port}"
    server.close()


def test_etl_killed_again_and_again(kafka: str, clickhouse: str, tmp_path: Path) -> None:
    dice = random.Random(3)
    values = [message(i, symbol) for i in range(1000) for symbol in ("AUSDT", "BUSDT", "CUSDT")]
    etl = Etl(kafka, clickhouse, tmp_path, BATCH_SIZE="20", BATCH_TIMEOUT="300ms")
    etl.produce(values + values[1500:1800])
    try:
        for round_ in range(3):
            etl.start()
            target = round_ * 900 + dice.randrange(100, 900)
            poll_until(lambda t=target: etl.count() >= t, f"{target} rows")
            etl.kill()
        etl.start()
        poll_until(lambda: etl.lag() == 0, "everything committed")
        assert etl.end() == 0
    finally:
        etl.close()
    assert etl.message_ids() == expected(values)


def test_clickhouse_killed_and_back(kafka: str, own_clickhouse: tuple[Server, str], tmp_path: Path) -> None:
    server, address = own_clickhouse
    values = [message(i) for i in range(4000)]
    etl = Etl(kafka, address, tmp_path, BATCH_SIZE="20", BATCH_TIMEOUT="300ms")
    etl.produce(values[:2000])
    etl.start()
    try:
        poll_until(lambda: etl.metric("rows_inserted_total") >= 300, "rows before")
        server.kill()
        etl.produce(values[2000:])
        poll_until(lambda: etl.get("/readyz")[0] == 503, "not ready")
        poll_until(lambda: "rows wait in Kafka" in etl.log.read_text(), "a warning")
        server.start()
        poll_until(lambda: etl.lag() == 0, "everything committed")
        poll_until(etl.ready, "ready again")
        assert etl.end() == 0
    finally:
        etl.close()
    assert etl.message_ids() == expected(values)


def test_kafka_killed_and_back(own_kafka: tuple[Server, str], clickhouse: str, tmp_path: Path) -> None:
    server, address = own_kafka
    values = [message(i) for i in range(2000)]
    etl = Etl(address, clickhouse, tmp_path, BATCH_SIZE="20", BATCH_TIMEOUT="300ms")
    etl.produce(values[:1500])
    etl.start()
    try:
        poll_until(lambda: etl.count() >= 300, "rows before")
        server.kill()
        server.start()
        etl.produce(values[1500:])
        poll_until(lambda: etl.lag() == 0, "everything committed")
        etl.produce([message(2000)])  # stored or not by the end
        server.hang()
        assert etl.end() == 0  # within the 20 s that `end` gives
    finally:
        server.go_on()
        etl.close()
    assert etl.message_ids() in (expected(values), expected([*values, message(2000)]))


def test_seconds_whatever_is_killed(
    own_kafka: tuple[Server, str], own_clickhouse: tuple[Server, str], tmp_path: Path
) -> None:
    server, address = own_clickhouse
    dice = random.Random(5)
    stats = [second(i, revision) for i in range(1500) for revision in range(dice.choice([1, 1, 3]))]
    stats.sort(key=lambda stat: stat.timestamp + stat.revision * dice.randrange(100_000))
    values = [message(i) for i in range(500)]
    etl = Etl(own_kafka[1], address, tmp_path, BATCH_SIZE="20", BATCH_TIMEOUT="300ms")
    etl.produce_stats(stats)
    etl.produce(values)
    try:
        for target in (200, 700):
            etl.start()
            poll_until(lambda t=target: len(etl.stats()) >= t, f"{target} seconds")
            etl.kill()
        etl.start()
        poll_until(lambda: len(etl.stats()) >= 1000, "1000 seconds")
        server.kill()
        server.start()
        poll_until(lambda: etl.lag() == 0 == etl.lag(SECONDSTAT), "everything committed")
        assert etl.end() == 0
    finally:
        etl.close()
    highest = {stat.timestamp: max(s.revision for s in stats if s.timestamp == stat.timestamp) for stat in stats}
    assert [(at, revision) for at, revision, _ in etl.stats()] == sorted(highest.items())
    assert all(int(quote.scaleb(16)) % 100 == revision for _, revision, quote in etl.stats())
    assert etl.message_ids() == expected(values)
