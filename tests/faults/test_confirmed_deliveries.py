"""The Kafka sink and source on a real broker that does not answer."""

import time
import uuid
from threading import Thread

import pytest
from cases import TODAY_MS
from varied_runs import ends, read

from flows.channels import Topic, create_topics
from flows.connectors.kafka_sink import KafkaSink, Record
from flows.connectors.kafka_source import CLOSE_S, KafkaSource

pytestmark = pytest.mark.faults


def test_an_epoch_can_not_commit_before_its_records_are_delivered(broker):
    topic = Topic(f"confirmed-{uuid.uuid4().hex[:6]}", 1)
    create_topics(broker.address, [topic])
    part = KafkaSink(broker.address, 1).build_part("kafka", "0", None)
    before = ends(broker.address, topic.name)
    broker.down("freeze")
    values = [b"%d" % n for n in range(100)]
    part.write_batch([[Record(topic.name, b"key", value, TODAY_MS) for value in values]])
    snapshot = Thread(target=part.snapshot)
    snapshot.start()
    snapshot.join(2)
    assert snapshot.is_alive()
    broker.up()
    snapshot.join(60)
    assert not snapshot.is_alive()
    assert [message.value() for message in read(broker.address, topic.name, before)[0]] == values
    part.close()


def test_a_source_is_closed_whose_last_commits_nobody_takes(broker):
    topic = Topic(f"closing-{uuid.uuid4().hex[:6]}", 3)
    create_topics(broker.address, [topic])
    source = KafkaSource(broker.address, topic.name, "closing")
    parts = [source.build_part("raw", name, None) for name in source.list_parts()]
    broker.down("stop")
    for part in parts:
        part.snapshot()
    began = time.monotonic()
    for part in parts:
        part.close()
    assert time.monotonic() - began < 2 * CLOSE_S
