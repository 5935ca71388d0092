"""The embedded Kafka broker and the jars it runs from."""

import shutil
import signal
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from flows.channels import Topic, create_topics
from infra.local import kafka_jars
from infra.local.kafka import kafka as kafka_part
from infra.local.kafka_jars import cache_dir, ensure_jars, kafka_version, locked_jars
from infra.local.part import free_port, spawn, stop, wait_ready


def cluster_id(bootstrap_servers: str) -> str:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    return admin.describe_cluster().result(10).cluster_id


def produce(bootstrap_servers: str, topic: str) -> KafkaError | None:
    """Send one record and wait for the broker's answer."""
    answers: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": bootstrap_servers, "message.timeout.ms": 5000})
    producer.produce(topic, b"x", on_delivery=lambda error, _: answers.append(error))
    assert producer.flush(10) == 0
    return answers[0]


@pytest.mark.faults
def test_records_and_identity_survive_kill_9(tmp_path: Path) -> None:
    port = free_port()
    part = kafka_part(tmp_path / "kafka", port)
    identities = set()
    for ending in (signal.SIGKILL, signal.SIGTERM):
        part.prepare()
        process = spawn(part, tmp_path / "log")
        try:
            wait_ready(part, process)
            identities.add(cluster_id(part.address))
            create_topics(part.address, [Topic("kept", 1)])
            assert produce(part.address, "kept") is None
        finally:
            process.send_signal(ending)
            stop(part, process)
    assert len(identities) == 1
    part.prepare()
    process = spawn(part, tmp_path / "log")
    try:
        wait_ready(part, process)
        consumer = Consumer({"bootstrap.servers": part.address, "group.id": "reader"})
        assert consumer.get_watermark_offsets(TopicPartition("kept", 0), timeout=10) == (0, 2)
        consumer.close()
    finally:
        stop(part, process)


def test_topics_are_never_made_by_accident(kafka: str) -> None:
    assert produce(kafka, "no-such-topic") is not None
    assert "no-such-topic" not in AdminClient({"bootstrap.servers": kafka}).list_topics(timeout=5).topics


def test_all_kafka_jars_have_one_version() -> None:
    jars = locked_jars()
    assert {jar.version for jar in jars if jar.artifact.startswith("kafka")} == {kafka_version()}
    assert len({jar.artifact for jar in jars}) == len(jars)


def test_a_fetch_that_was_killed_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ensure_jars()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    draft = cache_dir().with_suffix(".draft")
    shutil.copytree(whole, draft)
    damaged = min(draft.iterdir(), key=lambda file: file.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:100])
    (draft / "repository" / "half").mkdir(parents=True)
    fetched: list[str] = []
    download = kafka_jars._download
    monkeypatch.setattr(kafka_jars, "_download", lambda jar, at: (fetched.append(jar.filename), download(jar, at))[1])
    steps: list[tuple[int, int]] = []
    home = ensure_jars(lambda done, total: steps.append((done, total)))
    assert fetched == [damaged.name]
    assert all(jar.is_at(home / jar.filename) for jar in locked_jars())
    assert {file.name for file in home.iterdir()} == {jar.filename for jar in locked_jars()}
    assert steps[-1] == (len(locked_jars()), len(locked_jars()))
