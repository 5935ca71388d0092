"""Ranges of topics, read from given offsets up to what the topics hold at the call."""

import time
from collections.abc import Iterable, Iterator, Sequence

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition
from tenacity import retry, retry_if_exception, stop_after_delay, wait_fixed

from infra.tls import kafka_security

TIMEOUT_S = 30.0  # without an answer, or a record
CHUNK = 5000
_NO_LEADER_YET = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


def range_consumer(bootstrap_servers: str) -> Consumer:
    """A consumer of no group, for partitions assigned by hand."""
    return Consumer(
        {
            **kafka_security(),
            "bootstrap.servers": bootstrap_servers,
            "group.id": "tracker-reader",  # never joined
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 20,
        }
    )


@retry(
    retry=retry_if_exception(
        lambda error: isinstance(error, KafkaException) and error.args[0].code() in _NO_LEADER_YET
    ),
    stop=stop_after_delay(TIMEOUT_S),
    wait=wait_fixed(0.1),
    reraise=True,
)
def offsets_held(consumer: Consumer, topic: str, partitions: Iterable[int]) -> dict[int, tuple[int, int]]:
    """(first offset, offset after the last) of each partition; a new topic, without leaders yet, is waited for.

    Raises KafkaException.
    """
    places = {p: TopicPartition(topic, p) for p in partitions}
    return {p: consumer.get_watermark_offsets(place, timeout=TIMEOUT_S) for p, place in places.items()}


def read_range(
    bootstrap_servers: str, starts: Sequence[TopicPartition], timeout_s: float = TIMEOUT_S
) -> Iterator[Message]:
    """Every record from these positions on that is there now. Raises KafkaException."""
    consumer = range_consumer(bootstrap_servers)
    try:
        yield from read_to_end(consumer, starts, timeout_s=timeout_s)
    finally:
        consumer.close()


def read_to_end(
    consumer: Consumer,
    starts: Sequence[TopicPartition],
    ends: dict[int, int] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Iterator[Message]:
    """Records of one topic from these positions to `ends` (by partition; the present ends without it)."""
    left = {}
    for start in starts:
        _, end = consumer.get_watermark_offsets(start, timeout=timeout_s)
        left[start.partition] = min(end, ends[start.partition]) if ends else end
    wanted = [s for s in starts if s.offset == OFFSET_BEGINNING or s.offset < left[s.partition]]
    pending = {s.partition for s in wanted if left[s.partition] > 0}
    consumer.assign([s for s in wanted if s.partition in pending])
    progress_s = time.monotonic()
    while pending:
        messages = consumer.consume(CHUNK, timeout=0.05)  # it waits for a whole chunk
        if messages:
            progress_s = time.monotonic()
        elif time.monotonic() - progress_s > timeout_s:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no records of {sorted(pending)}"))
        for message in messages:
            error = message.error()
            partition = message.partition()
            if error is None:
                if partition in pending:
                    if message.offset() < left[partition]:
                        yield message
                    if message.offset() + 1 >= left[partition]:
                        pending.discard(partition)
            elif error.code() == KafkaError._PARTITION_EOF:
                pending.discard(partition)  # a compacted topic can end before its last offset
            elif error.fatal() or not error.retriable():
                raise KafkaException(error)
    consumer.unassign()
