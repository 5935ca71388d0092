"""Our partitioner is Kafka's."""

import uuid

from confluent_kafka import Producer
from flow_process import create_topic

from flows.channels import PARTITIONER
from flows.partitioning import murmur2, partition_of


def test_vectors_of_kafkas_own_tests():
    vectors = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}
    for data, expected in vectors.items():
        assert murmur2(data) == expected % 2**32


def test_equals_what_librdkafka_does(kafka):
    topic = f"partitions-{uuid.uuid4().hex[:8]}"
    create_topic(kafka, topic, 8)
    found = {}
    producer = Producer({"bootstrap.servers": kafka, "partitioner": PARTITIONER})
    symbols = ["BTCUSDT", "币安人生USDT", "A", *(f"C{n}USDT" for n in range(200))]
    for symbol in symbols:
        producer.produce(topic, b"x", symbol, on_delivery=lambda e, m: found.update({m.key().decode(): m.partition()}))
    producer.flush(20)
    assert found == {symbol: partition_of(symbol, 8) for symbol in symbols}
