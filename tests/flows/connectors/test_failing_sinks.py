"""How a flow ends whose sinks can't deliver: with the code and the words that are promised, whatever Bytewax closes."""

import os
import re
import subprocess
import sys
import uuid
from signal import SIGTERM
from subprocess import PIPE, STDOUT
from threading import Thread

import pytest

from flows import drain
from flows.channels import Topic, create_topics
from flows.connectors import kafka_sink
from flows.domain.errors import DeliveryFailed
from infra.local.part import LOOPBACK, free_port

FLOW = """
import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from flows import drain
from flows.connectors.kafka_sink import KafkaSink, Record
from flows.connectors.redis_sink import Place, Places, RedisSink
from infra.logs import setup_logging

PARTS = 3


class Source(FixedPartitionedSource):
    def __init__(self, topic):
        self.topic = topic

    def list_parts(self):
        return [str(part) for part in range(PARTS)]

    def build_part(self, step_id, for_part, resume_state):
        return Part(self.topic, for_part)


class Part(StatefulSourcePartition):
    def __init__(self, topic, part):
        self.left = [(part, [Record(topic, b"key", b'{"timestamp":1}' + b" " * 2000, 1)])]

    def next_batch(self):
        if drain.draining():
            raise StopIteration
        left, self.left = self.left, []
        if left:
            print("given", flush=True)
        return left

    def snapshot(self):
        return None


def flow(kind, host, port, topic):
    setup_logging("INFO")
    drain.install()
    flow = Dataflow("failing")
    places = Places(lambda key: Place(key, None), ("timestamp",))
    sink = KafkaSink(f"{host}:{port}", PARTS) if kind == "kafka" else RedisSink(host, port, PARTS, places)
    op.output("sink", op.input("source", flow, Source(topic)), sink)
    return flow
"""


@pytest.fixture
def start(tmp_path):
    """Runs the flow by Bytewax's own command; gives its process when each partition has given its record."""
    (tmp_path / "failing.py").write_text(FLOW)
    processes = []

    def run(kind, address, topic="any"):
        host, port = address.split(":")
        flow = f"failing:flow({kind!r}, {host!r}, {port}, {topic!r})"
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "bytewax.run", flow, "-s", "1"],
                env={**os.environ, "PYTHONPATH": str(tmp_path)}, stdout=PIPE, stderr=STDOUT, text=True,
            )
        )  # fmt: skip
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.communicate()


def await_given(process):
    lines = []
    while lines.count("given\n") < 3:
        lines.append(process.stdout.readline())
        assert lines[-1], lines


def test_a_store_that_is_away_at_a_drain_is_named_and_the_exit_code_is_1(start):
    flows = {kind: start(kind, f"{LOOPBACK}:{free_port()}") for kind in ("kafka", "redis")}
    for flow in flows.values():
        await_given(flow)
    for flow in flows.values():
        flow.send_signal(SIGTERM)
    for kind, flow in flows.items():
        output, _ = flow.communicate(timeout=10)
        assert flow.returncode == 1, output[-3000:]
        assert re.search(rf"{kind}( at \S+)? is away: .*; what is not committed comes again", output, re.I), output


def test_a_record_that_kafka_refuses_fails_the_flow_with_the_reason(start, kafka):
    topic = Topic(f"refusing-{uuid.uuid4().hex[:6]}", 1, {"max.message.bytes": "100"})
    create_topics(kafka, [topic])
    flow = start("kafka", kafka, topic.name)
    output, _ = flow.communicate(timeout=30)
    assert flow.returncode == 1, output[-3000:]
    assert "DeliveryFailed: Kafka refused a record" in output


def test_a_record_at_the_end_of_a_long_drain_is_delivered_where_kafka_is_well(kafka, monkeypatch):
    topic = Topic(f"drained-{uuid.uuid4().hex[:6]}", 1, {})
    create_topics(kafka, [topic])
    monkeypatch.setattr(drain, "overdue", lambda: True)
    monkeypatch.setattr(drain, "give_up", pytest.fail)
    part = kafka_sink.KafkaSinkPart(kafka)
    part._producer.list_topics(topic.name, timeout=20)
    part._producer.flush(20)
    part.write_batch([[kafka_sink.Record(topic.name, b"k", b"v", 1)]])
    monkeypatch.setattr(drain, "overdue", lambda: False)
    part.snapshot()


class Stuck:
    """A producer that never delivers, as librdkafka's can be."""

    def __len__(self):
        return 3

    def flush(self, _seconds):
        return 3


def test_a_client_that_does_not_connect_again_fails_the_flow_once_kafka_answers_others(kafka, monkeypatch):
    monkeypatch.setattr(kafka_sink, "STUCK_S", 0.0)
    away, back = kafka_sink.KafkaSinkPart(f"{LOOPBACK}:{free_port()}"), kafka_sink.KafkaSinkPart(kafka)
    monkeypatch.setattr(away, "_producer", Stuck())
    monkeypatch.setattr(back, "_producer", Stuck())
    waiting = Thread(target=away.snapshot, daemon=True)
    waiting.start()
    with pytest.raises(DeliveryFailed, match="took none of 3 records"):
        back.snapshot()
    assert waiting.is_alive()
    monkeypatch.setattr(Stuck, "__len__", lambda _: 0)
    waiting.join(20)
    assert not waiting.is_alive()


def test_a_client_that_has_not_yet_found_kafka_again_is_waited_for(kafka, monkeypatch):
    """Kafka comes back just as others are asked: they find it at once, and this client some seconds later."""
    monkeypatch.setattr(kafka_sink, "STUCK_S", 0.0)
    part, asked, answers = kafka_sink.KafkaSinkPart(kafka), [], kafka_sink.answers

    def comes_back(config):
        asked.append(answers(config))
        return asked[-1]

    monkeypatch.setattr(kafka_sink, "answers", comes_back)
    monkeypatch.setattr(part, "_producer", Stuck())
    monkeypatch.setattr(Stuck, "__len__", lambda _: 0 if asked else 3)
    part.snapshot()
    assert asked == [True]
