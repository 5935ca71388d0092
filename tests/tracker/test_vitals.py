"""What `tracker status` finds out from Kafka and the services."""

import json
import secrets
import shutil
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from flows.channels import Topic, create_topics
from infra.health import serve_health
from infra.local.state import PartState, StackState
from tracker import vitals
from tracker.advice import for_disk, for_down, for_lag, for_silence
from tracker.vitals import examine


def stack_of(*parts: PartState) -> StackState:
    state = StackState.of_this_process("simulated", 0)
    state.parts = list(parts)
    return state


def external(name: str, probe: str, address: str = "") -> PartState:
    """A row of a server that the stack did not start."""
    return PartState(name, "up", address, probe)


def commit(bootstrap_servers: str, group: str, position: TopicPartition) -> None:
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": group})
    consumer.commit(offsets=[position], asynchronous=False)
    consumer.close()


def test_lag_and_age_of_the_last_record(kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    topic, group = (f"{word}-{secrets.token_hex(4)}" for word in ("raw", "flow"))
    create_topics(kafka, [Topic(topic, 2)])
    monkeypatch.setattr(vitals, "GROUPS", {"second-stats": (group, [topic], topic)})
    stack = stack_of(external("kafka", f"kafka://{kafka}", kafka), external("second-stats", f"tcp://{kafka}"))
    deadline = time.monotonic() + 20
    while (row := examine(stack).parts[1]).note:  # a new broker first makes its group coordinator
        assert time.monotonic() < deadline, row.note
    assert (row.lag, row.last_event_age_s) == (0, None)
    producer = Producer({"bootstrap.servers": kafka})
    written_ms = int(time.time() * 1000) - 60_000
    for partition, count in ((0, 5), (1, 3)):
        for _ in range(count):
            producer.produce(topic, b"x", partition=partition, timestamp=written_ms)
    assert producer.flush(10) == 0
    assert examine(stack).parts[1].lag == 8
    commit(kafka, group, TopicPartition(topic, 0, 4))
    row = examine(stack).parts[1]
    assert row.lag == 4
    assert row.last_event_age_s == pytest.approx(60, abs=20)


def test_ingests_last_event_and_the_subscriptions() -> None:
    subscriptions = {"desired": ["BTCUSDT"], "actual": ["BTCUSDT"]}
    streams = {"connected": True, "last_event_ms": int(time.time() * 1000)}
    extra = {
        "/streams": lambda: json.dumps(streams).encode(),
        "/subscriptions": lambda: json.dumps(subscriptions).encode(),
    }
    server = serve_health("127.0.0.1", 0, lambda: None, extra)
    try:
        url = f"http://127.0.0.1:{server.port}/readyz"
        found = examine(stack_of(external("ingest", url), external("aggregator", url)))
    finally:
        server.close()
    assert found.subscriptions == subscriptions
    assert found.parts[0].up
    assert found.parts[0].last_event_age_s == pytest.approx(0, abs=10)


def test_a_row_of_a_process_that_is_gone_is_down() -> None:
    row = PartState("redis", "up", "", "", pid=1, created_s=1.0)
    (found,) = examine(stack_of(row)).parts
    assert not found.up
    assert "tracker logs redis" in found.hint


def test_a_part_is_down_for_the_reason_its_readyz_gives_and_what_it_needs_is_named() -> None:
    server = serve_health("127.0.0.1", 0, lambda: "Kafka is away", {})
    try:
        url = f"http://127.0.0.1:{server.port}"
        kafka = PartState("kafka", "up", "h:1", "tcp://127.0.0.1:1", pid=1, created_s=1.0)
        me = StackState.of_this_process("simulated", 0)
        socket = PartState("socket", "up", "", f"{url}/nowhere", f"{url}/readyz", pid=me.pid, created_s=me.created_s)
        _, found = examine(stack_of(kafka, socket)).parts
    finally:
        server.close()
    assert not found.up
    assert found.detail == "Kafka is away"
    assert found.hint == "Kafka is away; it needs kafka: mend that first"


@pytest.mark.parametrize(
    ("row", "pid", "advice"),
    [
        (PartState("kafka", "up", "h:9092", ""), None, "check the server that BROKERS names"),
        (PartState("ingest", "waiting", "", ""), None, "waits for kafka"),
        (PartState("kafka", "starting", "", "", pid=5, created_s=1.0), 5, "starting"),
        (PartState("redis", "died", "", "", note="exit code 1"), None, "died (exit code 1) and is started again"),
        (PartState("redis", "up", "", "", pid=5, created_s=1.0), 5, "`kill -9 5`"),
        (PartState("redis", "failed", "", ""), None, "start the stack again"),
    ],
)
def test_every_way_to_be_down_has_its_advice(row: PartState, pid: int | None, advice: str) -> None:
    assert advice in for_down(row, pid, "no answer")


def test_an_exchange_that_is_silent_and_a_flow_that_is_behind_are_told() -> None:
    assert for_silence("ingest", 1.0) == ""
    assert "for 61 s; see `tracker logs ingest`" in for_silence("ingest", 61.0)
    assert "yet" in for_silence("ingest", None)
    assert for_lag("second-stats", 10) == ""
    assert "2,000,000 records behind" in for_lag("second-stats", 2_000_000)


def test_a_disk_that_is_nearly_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert for_disk(tmp_path) == "" or shutil.disk_usage(tmp_path).free < 2_000_000_000
    monkeypatch.setattr("tracker.advice.DISK_LOW_BYTES", 2**62)
    assert "RAW_RETENTION_BYTES" in for_disk(tmp_path)
