"""What is no longer in memory: read from Kafka for one client, a block at a time."""

import asyncio
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from api.socket.errors import FellBehind
from api.socket.records import Block, block_of

_AT_A_TIME = 4  # a client that does not read holds none
_READERS = 16  # a replay goes through all partitions of a topic at once
_BLOCK = 1000
_WAIT_S = 1.0


class History:
    """A few consumers shared by all clients that are behind; each goes on where it read last, if it can."""

    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        self._config = {
            **config,
            "queued.max.messages.kbytes": 1024,
            "fetch.queue.backoff.ms": 2,  # a full queue is looked at again after a second by default
        }
        self._topic = topic
        self._slots = asyncio.Semaphore(_AT_A_TIME)
        self._idle: list[_Reader] = []

    async def read(self, partition: int, offset: int) -> Block | None:
        """The block from `offset` on; None if Kafka has not answered within a second. Raises FellBehind."""
        async with self._slots:
            reader = self._take(partition, offset)
            block = await asyncio.to_thread(reader.read, partition, offset)
            self._idle.append(reader)  # only one that is sound: an error or a cancellation drops it
            return block

    def close(self) -> None:
        """Close the consumers that wait."""
        for reader in self._idle:
            reader.close()
        self._idle.clear()

    def _take(self, partition: int, offset: int) -> "_Reader":
        place = partition, offset
        index = next((i for i, one in enumerate(self._idle) if one.place == place), None)
        if index is not None:
            return self._idle.pop(index)
        if len(self._idle) < _READERS:
            return _Reader(self._config, self._topic)
        return self._idle.pop(0)


class _Reader:
    def __init__(self, config: Mapping[str, Any], topic: str) -> None:
        self.place: tuple[int, int] | None = None  # partition and offset that it would read next
        self._topic = topic
        self._consumer = Consumer(config)

    def read(self, partition: int, offset: int) -> Block | None:
        if self.place != (partition, offset):
            self._consumer.assign([TopicPartition(self._topic, partition, offset)])
            self.place = partition, offset
        first = self._consumer.poll(_WAIT_S)
        if first is None:
            return None
        messages = []
        for message in [first, *self._consumer.consume(_BLOCK - 1, 0)]:
            if (error := message.error()) is None:
                messages.append(message)
            elif error.code() == KafkaError._AUTO_OFFSET_RESET:
                raise self._gone(partition, offset)
            elif error.fatal() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise KafkaException(error)
        if not messages:
            return None
        block = block_of(offset, messages)
        self.place = partition, block.next
        return block

    def _gone(self, partition: int, offset: int) -> FellBehind:
        low, _ = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=5)
        return FellBehind(
            f"the next record, offset {offset} of partition {partition}, has left the log; the earliest is {low}"
        )

    def close(self) -> None:
        self._consumer.close()
