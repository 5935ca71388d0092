"""The end of a raw topic, read once for all clients and kept in memory: a few megabytes a partition."""

import asyncio
import logging
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from api.socket.records import Block, block_of

KEEP_BYTES = 4 * 2**20  # a partition
KEEP_BLOCKS = 4096
_CHUNK = 2000
_BLOCK = 500  # what one stream can hold on to while its client does not read
_GATHER_S = 0.02  # a little latency for far fewer wake-ups
_AHEAD = 4  # chunks that may wait for the event loop

log = logging.getLogger(__name__)


class Ring:
    """The newest blocks of a partition; `end` is the offset after them."""

    def __init__(self, end: int) -> None:
        self.end = end
        self._blocks: deque[Block] = deque()
        self._bytes = 0

    def append(self, block: Block) -> None:
        """Add the block that follows, and forget the oldest."""
        self.end = block.next
        if not block.records and self._blocks:  # a quiet partition is mostly heartbeats
            self._blocks[-1].next, self._blocks[-1].time_ms = block.next, block.time_ms
            return
        self._blocks.append(block)
        self._bytes += block.size
        while self._bytes > KEEP_BYTES or len(self._blocks) > KEEP_BLOCKS:
            self._bytes -= self._blocks.popleft().size

    def find(self, offset: int) -> Block | None:
        """The block that holds an offset, None if it is not here (any more)."""
        at = bisect_right(self._blocks, offset, key=lambda block: block.start) - 1
        return self._blocks[at] if at >= 0 and offset < self._blocks[at].next else None


class Tail:
    """A thread that reads the topic's partitions from `ends` on. `rings` change on the event loop only."""

    def __init__(
        self,
        config: Mapping[str, Any],
        topic: str,
        ends: Mapping[int, int],
        arrived: Callable[[int, Block], None],
        failed: Callable[[str], None],
    ) -> None:
        self.rings = {partition: Ring(end) for partition, end in ends.items()}
        self._topic = topic
        self._arrived, self._failed = arrived, failed
        self._positions = dict(ends)
        self._loop = asyncio.get_running_loop()
        self._stopping = threading.Event()
        self._ahead = threading.Semaphore(_AHEAD)
        self._consumer = Consumer({**config, "queued.max.messages.kbytes": 16_384, "fetch.queue.backoff.ms": 10})
        self._consumer.assign([TopicPartition(topic, partition, end) for partition, end in ends.items()])
        self._thread = threading.Thread(target=self._read, name=f"tail of {topic}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread soon; does not wait for it."""
        self._stopping.set()

    def _read(self) -> None:
        try:
            while not self._stopping.is_set():
                if messages := self._consumer.consume(_CHUNK, _GATHER_S):
                    blocks = self._blocks(messages)
                    while not self._ahead.acquire(timeout=0.5):
                        if self._stopping.is_set():
                            return
                    self._loop.call_soon_threadsafe(self._take_in, blocks)
        except KafkaException as error:
            log.error("%s: reading ends: %s", self._topic, error)
            self._loop.call_soon_threadsafe(self._failed, f"{self._topic}: {error.args[0].str()}")
        except Exception:  # whatever it is, no stream may wait for a thread that has ended
            log.exception("%s: reading ends", self._topic)
            self._loop.call_soon_threadsafe(self._failed, f"{self._topic} can't be read")
        finally:
            self._consumer.close()

    def _blocks(self, messages: list[Message]) -> list[tuple[int, Block]]:
        good = []
        for message in messages:
            error = message.error()
            if error is None:
                good.append(message)
            elif error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.UNKNOWN_TOPIC_OR_PART) or error.fatal():
                raise KafkaException(error)
            else:
                log.warning("%s: %s", self._topic, error.str())  # librdkafka goes on by itself
        blocks = []
        good.sort(key=Message.partition)  # stable: offsets stay in order
        for partition, group in groupby(good, Message.partition):
            found = list(group)
            for at in range(0, len(found), _BLOCK):
                block = block_of(self._positions[partition], found[at : at + _BLOCK])
                self._positions[partition] = block.next
                blocks.append((partition, block))
        return blocks

    def _take_in(self, blocks: list[tuple[int, Block]]) -> None:
        self._ahead.release()
        for partition, block in blocks:
            self.rings[partition].append(block)
            self._arrived(partition, block)
