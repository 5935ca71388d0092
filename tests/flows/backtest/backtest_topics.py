"""Recorded and made-up trades in topics of their own, for `tracker backtest`."""

import gzip
import json
import uuid
from collections.abc import Iterable
from pathlib import Path

from confluent_kafka import Producer

from flows.channels import create_topics, imported
from flows.partitioning import partition_of


def fill(brokers: str, values: Iterable[bytes], after_ms: int = 5000, name: str | None = None) -> str:
    """Raw trades in a new topic, or at the end of one, each at its E, and a heartbeat a partition that closes their last second."""
    name = name or f"backtest-{uuid.uuid4().hex[:8]}"
    topic = imported(name)
    create_topics(brokers, [topic])
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 20})
    failures: list[object] = []

    def delivered(error: object, _message: object) -> None:
        if error:
            failures.append(error)

    last = 0
    for value in values:
        trade = json.loads(value)
        last = max(last, trade["E"])
        producer.produce(
            name, value, trade["s"], partition_of(trade["s"], topic.partitions), delivered, timestamp=trade["E"]
        )
        producer.poll(0)
    for partition in range(topic.partitions):
        heartbeat = b'{"e":"heartbeat","E":%d}' % (last + after_ms)
        producer.produce(name, heartbeat, None, partition, delivered, timestamp=last + after_ms)
    assert producer.flush(60) == 0
    assert not failures
    return name


def recorded(file: Path) -> list[bytes]:
    """The aggTrade objects of a recording of combined frames."""
    with gzip.open(file) as lines:
        return [line.partition(b'"data":')[2].rstrip()[:-1] for line in lines]


def made_up(seconds: Iterable[tuple[int, str, Iterable[str]]]) -> list[bytes]:
    """Trades of 1 coin each: (time in ms, symbol, prices)."""
    values, number = [], 0
    for time_ms, symbol, prices in seconds:
        for price in prices:
            number += 1
            values.append(
                b'{"e":"aggTrade","E":%d,"s":"%b","a":%d,"p":"%b","q":"1","f":%d,"l":%d,"T":%d,"m":true,"M":true}'
                % (time_ms, symbol.encode(), number, price.encode(), number, number, time_ms)
            )
    return values
