"""A dataflow as its users run it: `python -m bytewax.run`, in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic


def make_recovery(directory):
    directory.mkdir()
    subprocess.run([sys.executable, "-m", "bytewax.recovery", str(directory), "1"], check=True)
    return directory


@contextmanager
def running_flow(module, recovery, log, **environment):
    """The running process; killed at the end if a test did not stop it."""
    command = [sys.executable, "-m", "bytewax.run", module, "-r", str(recovery), "-s", "1", "-b", "0"]
    with log.open("ab") as output:
        process = subprocess.Popen(command, env={**os.environ, **environment}, stderr=output, stdout=output)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait(10)


def poll_until(condition, seconds=30, what="condition"):
    """The first truthy value of `condition()`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError(f"{what} did not come true in {seconds} s")


def create_topic(brokers, name, partitions):
    admin = AdminClient({"bootstrap.servers": brokers})
    admin.create_topics([NewTopic(name, partitions, 1)])[name].result(30)


class TopicReader:
    """Everything in a topic so far, read on at each call."""

    def __init__(self, brokers, topic):
        self._consumer = Consumer(
            {
                "bootstrap.servers": brokers,
                "group.id": "test-reader",
                "enable.auto.commit": False,
                # Records of other tests leave a shared topic by their age.
                "auto.offset.reset": "earliest",
            }
        )
        partitions = poll_until(
            lambda: self._consumer.list_topics(topic, timeout=10).topics[topic].partitions, what=f"topic {topic}"
        )
        self._partitions = [TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions]
        self._consumer.assign(self._partitions)
        self._next = dict.fromkeys(partitions, 0)
        self.messages = []

    def read(self):
        """All messages up to what the topic holds at this moment."""
        ends = {p.partition: self._range(p)[1] for p in self._partitions}
        while any(self._next[partition] < end for partition, end in ends.items()):
            messages = self._consumer.consume(10_000, timeout=0.05)
            if not messages:
                for p in self._partitions:
                    self._next[p.partition] = max(self._next[p.partition], self._range(p)[0])
            for message in messages:
                if message.error() is None:
                    self._next[message.partition()] = message.offset() + 1
                    self.messages.append(message)
        return self.messages

    def _range(self, partition):
        """(Its first offset, the offset after its last record)."""
        return poll_until(lambda: self._offsets(partition), what=f"{partition}")

    def _offsets(self, partition):
        """The same, or None while a new partition has no leader yet."""
        try:
            return self._consumer.get_watermark_offsets(partition, timeout=10)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
                raise
            return None

    def close(self):
        self._consumer.close()


def produce(brokers, topic, records):
    """(key, value, partition or None, headers[, timestamp in ms]) in order, delivered."""
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True})
    failures = []
    for key, value, partition, headers, *timestamp in records:
        place = {} if partition is None else {"partition": partition}
        if timestamp:
            place["timestamp"] = timestamp[0]
        producer.produce(
            topic, value, key, headers=headers, on_delivery=lambda e, _: failures.append(e) if e else None, **place
        )
        producer.poll(0)
    producer.flush(30)
    assert not failures
