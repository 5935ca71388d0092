"""Reads offsets [start, end) of one partition, a chunk at a time, with little held in memory."""

import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from flows.domain.errors import NoTopic, OutOfRange
from infra.tls import kafka_security

CHUNK_SIZE = 10_000
TIMEOUT_S = 60.0  # without a record
AHEAD_KB = 8 * 1024  # that the client may have read ahead
FETCH_BYTES = 64 * 1024  # compressed: heartbeats come out a dozen times as large, and are many
_GONE = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)


class PartitionReader:
    """A consumer of its own, so that a reader of several partitions chooses which one goes on."""

    def __init__(self, bootstrap_servers: str, topic: str, partition: int, start: int, end: int) -> None:
        self._where = f"{topic} partition {partition}"
        self._end = end
        self.offset = start  # the next one
        self._heard = time.monotonic()
        self._consumer: Consumer | None = None
        if start >= end:
            return
        self._consumer = Consumer(
            {
                **kafka_security(),
                "bootstrap.servers": bootstrap_servers,
                "group.id": "tracker-reader",  # never joined
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",  # an offset out of retention must not be skipped over in silence
                "fetch.wait.max.ms": 20,
                "fetch.queue.backoff.ms": 10,
                "queued.max.messages.kbytes": AHEAD_KB,
                "queued.min.messages": CHUNK_SIZE,
                "fetch.message.max.bytes": FETCH_BYTES,
            }
        )
        self._consumer.assign([TopicPartition(topic, partition, start)])

    def read(self, wait: bool = True) -> list[Message]:
        """The next records; none only at the end, or when there are none yet and it is not to wait.

        Raises OutOfRange if retention has overtaken us, NoTopic if the topic is deleted, KafkaException also when
        nothing has come for TIMEOUT_S.
        """
        while self._consumer is not None:
            messages = self._consumer.consume(CHUNK_SIZE, timeout=0)
            if not messages and wait:
                first = self._consumer.poll(1.0)
                messages = [] if first is None else [first]
            good = self._good(messages)
            if good:
                self._heard = time.monotonic()
                return good
            if time.monotonic() - self._heard > TIMEOUT_S and self._consumer is not None:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no records of {self._where} at {self.offset}"))
            if not wait:
                break
        return []

    def _good(self, messages: list[Message]) -> list[Message]:
        good = messages
        at_end = False
        if any(map(Message.error, messages)):
            at_end = any(self._is_end(m.error()) for m in messages if m.error() is not None)
            good = [m for m in messages if m.error() is None]
        if good and good[-1].offset() >= self._end - 1:
            at_end = True
            if good[-1].offset() >= self._end:
                good = [m for m in good if m.offset() < self._end]
        if good:
            self.offset = good[-1].offset() + 1
        if at_end:
            self.close()
        return good

    def _is_end(self, error: KafkaError) -> bool:
        """Whether it says that the log ends here; raises what is worse."""
        code = error.code()
        if code == KafkaError._PARTITION_EOF:  # the last offsets may hold no records
            return True
        if code in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise OutOfRange(f"{self._where} at {self.offset}: {error.str()}")
        if code in _GONE:
            raise NoTopic(f"{self._where} is gone: {error.str()}")
        if error.fatal() or not error.retriable():
            raise KafkaException(error)
        return False

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to read."""
        return self._consumer is None

    def close(self) -> None:
        """Leave Kafka."""
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None
