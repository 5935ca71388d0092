"""Logs in a topic of one's own, for the replay's tests."""

import uuid

from confluent_kafka import OFFSET_BEGINNING, KafkaException, Producer, TopicPartition

from flows.channels import create_topics, imported
from flows.connectors.kafka_range import range_consumer, read_range


def fill(brokers, log, name=None):
    """The log's entries in a new topic of recordings; gives its name."""
    topic = name or f"{log.name}-{uuid.uuid4().hex[:8]}"
    create_topics(brokers, [imported(topic)])
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 20})
    failures = []
    for partition, entries in enumerate(log.partitions):
        for entry in entries:
            headers = [] if entry.received_ms is None else [("received_ms", b"%d" % entry.received_ms)]
            producer.produce(
                topic,
                entry.value,
                entry.key,
                partition,
                timestamp=entry.timestamp,
                headers=headers,
                on_delivery=lambda error, _: failures.append(error) if error else None,
            )
            producer.poll(0)
    assert producer.flush(30) == 0
    assert not failures
    return topic


def expected(log, start_ms=0, end_ms=1 << 62):
    """The output lines that the naive reference gives for [start_ms, end_ms)."""
    keys = sorted(key for key in log.final if start_ms <= key[0] and key[0] + 1000 <= end_ms)
    return b"".join(log.final[key] + b"\n" for key in keys)


def records(brokers, topic, partitions=8):
    """By partition, (key, value, timestamp) of every record."""
    found = [[] for _ in range(partitions)]
    starts = [TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)]
    for message in read_range(brokers, starts):
        key = message.key()
        found[message.partition()].append((key and key.decode(), message.value(), message.timestamp()[1]))
    return found


def written(brokers, topic, partitions=8):
    """How many records a topic has; 0 while it is not there."""
    consumer = range_consumer(brokers)
    try:
        if consumer.list_topics(topic, timeout=10).topics[topic].error is not None:
            return 0
        places = [TopicPartition(topic, p) for p in range(partitions)]
        return sum(consumer.get_watermark_offsets(place, timeout=10)[1] for place in places)
    except KafkaException:  # no leader yet
        return 0
    finally:
        consumer.close()
