"""Where a KafkaSource begins and ends."""

import json
import uuid
from types import SimpleNamespace

from bytewax.testing import TestingSink, run_main
from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient
from flow_process import create_topic, produce

from flows.connectors import kafka_source
from flows.connectors.kafka_source import KafkaPartition, KafkaSource
from flows.second_stats import build_flow

BASE = 1_790_000_000_000
TRADES = 400  # one each 20 ms


def trade(n):
    at = BASE + n * 20
    return json.dumps(
        {"e": "aggTrade", "E": at, "s": "CUTUSDT", "a": n, "p": "1.5", "q": "2", "f": n, "l": n, "T": at, "m": True}
        | {"M": True}, separators=(",", ":"),
    ).encode()  # fmt: skip


def seconds_of(brokers, topic):
    """(ms, trades) of what the flow publishes of the whole topic."""
    published = []
    sinks = TestingSink(published), TestingSink([]), TestingSink([])
    run_main(build_flow(KafkaSource(brokers, topic, stop={0: TRADES + 1}), *sinks))
    stats = [json.loads(value) for _, records in published for value in records.values]
    return [(stat["timestamp"], stat["trade_count"]) for stat in stats]


def test_seconds_cut_by_retention_are_not_published(kafka):
    topic = f"cut-{uuid.uuid4().hex[:8]}"
    create_topic(kafka, topic, 1)
    values = [*map(trade, range(TRADES)), b'{"e":"heartbeat","E":%d}' % (BASE + 20_000)]
    produce(kafka, topic, [(b"CUTUSDT", v, 0, [], json.loads(v)["E"]) for v in values])
    whole = [(BASE + second * 1000, 50) for second in range(8)]
    assert seconds_of(kafka, topic) == whole
    admin = AdminClient({"bootstrap.servers": kafka})
    assert all(done.result(20) for done in admin.delete_records([TopicPartition(topic, 0, 75)]).values())
    assert seconds_of(kafka, topic) == whole[3:]  # what began in 1.5 s or a second later may lack trades


def test_a_passing_error_does_not_end_a_bounded_range(kafka, monkeypatch):
    topic = f"bounded-{uuid.uuid4().hex[:8]}"
    create_topic(kafka, topic, 1)
    produce(kafka, topic, [(b"k", b"v", 0, [])])
    part = KafkaPartition(KafkaSource(kafka, topic, stop={0: 1}), 0, None)
    passing = SimpleNamespace(error=lambda: KafkaError(KafkaError._TRANSPORT))
    own = part._consumer
    monkeypatch.setattr(kafka_source, "Message", SimpleNamespace(error=lambda message: message.error()))
    monkeypatch.setattr(part, "_consumer", SimpleNamespace(consume=lambda *_, **__: [passing]))
    assert part.next_batch() == []
    assert part.snapshot().offset == 0
    monkeypatch.setattr(part, "_consumer", own)
    part.close()
