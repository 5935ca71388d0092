"""Quix Streams in chunks, with commits that follow a sink's batches.

Quix Streams takes one record a turn of its loop, which costs more than all that the ETL does with it. Here an item of
the stream is a chunk: a list of Kafka messages.

It commits by a checkpoint's age or by its count of records, both fixed. Here the sink says when: at its size or at its
timeout, counted from the batch's first row; and while the reader is far behind, at larger batches.
"""

import logging
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from contextvars import copy_context
from dataclasses import fields
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaError, Message, TopicPartition

from flows import drain
from flows.connectors.clickhouse_sink import ClickHouseSink
from flows.connectors.quix import (
    Application,
    CheckpointConsumerCommitError,
    ConnectionConfig,
    KafkaConsumerException,
    MessageContext,
    ProcessingContext,
    set_message_context,
)
from infra.tls import kafka_security

log = logging.getLogger(__name__)

FAR_BEHIND = 5_000  # records that wait in Kafka
LARGEST_CHUNK = 2_000
POLL_S = 0.1  # how late a timeout, or SIGTERM, may be seen
SESSION_TIMEOUT_MS = 6_000  # the least that brokers accept: a killed process's partitions are taken over this late


class BatchContext(ProcessingContext):
    """Commits a checkpoint when the sink's batch is due."""

    sink: ClickHouseSink
    behind = False  # as far as was known when the last batch was full

    def commit_checkpoint(self, force: bool = False, revoking: bool = False) -> None:
        """Called after every chunk, and with `force` at the end and when partitions go."""
        if not (force or self.sink.overdue() or self._full()):
            return
        try:
            super().commit_checkpoint(force=True, revoking=revoking)
        except CheckpointConsumerCommitError as error:
            # The rows are stored. If nobody commits a later offset, they are read again and recognised.
            log.warning("Kafka did not take the offsets of a batch: %s", error)
            self.init_checkpoint()

    def _full(self) -> bool:
        if not self.sink.full(behind=False):
            return False
        self.behind = self._waiting() >= FAR_BEHIND
        return self.sink.full(self.behind)

    def _waiting(self) -> int:
        """Records of our partitions that Kafka holds and we have not read, as the last fetches told."""
        waiting = 0
        for position in self.consumer.position(self.consumer.assignment()):
            _, end = self.consumer.get_watermark_offsets(position, cached=True)
            if position.offset >= 0:
                waiting += max(0, end - position.offset)
        return waiting


class BatchApplication(Application):
    """A Quix Streams application with one ClickHouseSink; it waits for a Kafka that is away.

    Several may run in threads of one process, which is to install `flows.drain`: they stop when it is asked to.
    """

    def __init__(self, bootstrap_servers: str, consumer_group: str, sink: ClickHouseSink) -> None:
        state = Path(tempfile.gettempdir())
        # Quix makes the group's directory when it runs; two applications at once would get in each other's way.
        (state / consumer_group).mkdir(parents=True, exist_ok=True)
        super().__init__(
            broker_address=ConnectionConfig.from_librdkafka_dict(
                {**kafka_security(), "bootstrap.servers": bootstrap_servers}
            ),
            consumer_group=consumer_group,
            auto_offset_reset="earliest",
            consumer_poll_timeout=POLL_S,
            consumer_extra_config={"session.timeout.ms": SESSION_TIMEOUT_MS, "heartbeat.interval.ms": 1_500},
            auto_create_topics=False,
            use_changelog_topics=False,
            broker_availability_timeout=0,
            loglevel=None,
            state_dir=state,  # without state nothing is written, but the directory is made
        )
        self.assigned = False
        self._sink = sink
        plain: ProcessingContext = self._processing_context
        self._processing_context: BatchContext = BatchContext(
            **{f.name: getattr(plain, f.name) for f in fields(plain) if f.init}
        )
        self._processing_context.sink = sink

    def _process_message(self, dataframes: Mapping[str, Any]) -> None:
        """A turn of Quix Streams' loop: one chunk through the dataframe of its topic, its offsets to the checkpoint."""
        self._producer.poll(0)
        if drain.draining():
            self.stop()
            return
        chunks: dict[str, list[Message]] = defaultdict(list)
        room = self._sink.room(self._processing_context.behind)
        for message in self._consumer.consume(min(room, LARGEST_CHUNK), POLL_S):
            if message.error() is None:
                chunks[message.topic()].append(message)
            else:
                _wait_out(message.error())
        for topic, chunk in chunks.items():
            first = chunk[0]
            context = copy_context()
            context.run(set_message_context, MessageContext(topic, first.partition(), first.offset(), len(chunk)))
            context.run(dataframes[topic], chunk, None, first.timestamp()[1], [])
            self._store_offsets(topic, chunk)
        self._run_tracker.set_message_consumed(bool(chunks))

    def _setup_signal_handlers(self) -> None:
        """Signals are the process's business, and only its main thread may say what happens then."""

    def _store_offsets(self, topic: str, chunk: list[Message]) -> None:
        """The first offset too: it is where the checkpoint goes back to when ClickHouse is away."""
        ends: dict[int, tuple[int, int]] = {}
        for message in chunk:
            partition, offset = message.partition(), message.offset()
            ends[partition] = (ends[partition][0] if partition in ends else offset, offset)
        for partition, (first, last) in ends.items():
            for offset in sorted({first, last}):
                self._processing_context.store_offset(topic, partition, offset)

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._sink.forget()
        super()._on_assign(consumer, partitions)
        self.assigned = True
        log.info("reading %s", ", ".join(f"{p.topic}[{p.partition}]" for p in partitions) or "no partition")

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """What the batch holds is read again: to store it now could take longer than these partitions are ours."""
        self._drop()
        super()._on_revoke(consumer, partitions)

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Someone else has read these records by now: neither their rows nor their offsets are ours to write."""
        self._drop()
        super()._on_lost(consumer, partitions)

    def _drop(self) -> None:
        self.assigned = False
        self._sink.forget()
        self._processing_context.init_checkpoint()


def _wait_out(error: KafkaError) -> None:
    """Errors that Kafka's client gets over by itself are logged. Raises KafkaConsumerException for the others."""
    if error.fatal():
        raise KafkaConsumerException(error)
    log.warning("reading from Kafka: %s", error.str())
