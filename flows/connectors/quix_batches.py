"""Quix Streams with commits that follow a sink's batches.

Quix Streams commits by a checkpoint's age or by its count of records, both fixed. Here the sink says when: at its size
or at its timeout, counted from the batch's first row; and while the reader is far behind, at larger batches.
"""

import logging
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

from confluent_kafka import TopicPartition
from quixstreams import Application
from quixstreams.checkpointing.exceptions import CheckpointConsumerCommitError
from quixstreams.kafka.exceptions import KafkaConsumerException
from quixstreams.processing import ProcessingContext

from flows.connectors.clickhouse_sink import ClickHouseSink

log = logging.getLogger(__name__)

FAR_BEHIND = 5_000  # records that wait in Kafka
LARGEST_BATCH = 20_000
POLL_S = 0.1  # how late a timeout, or SIGTERM, may be seen
SESSION_TIMEOUT_MS = 6_000  # the least that brokers accept: a killed process's partitions are taken over this late


class BatchContext(ProcessingContext):  # type: ignore[misc]
    """Commits a checkpoint when the sink's batch is due."""

    sink: ClickHouseSink

    def commit_checkpoint(self, force: bool = False, revoking: bool = False) -> None:
        """Called after every record, and with `force` at the end and when partitions go."""
        if not (force or self.sink.overdue() or (self.sink.full() and self._enough())):
            return
        try:
            super().commit_checkpoint(force=True, revoking=revoking)
        except CheckpointConsumerCommitError as error:
            # The rows are stored. If nobody commits a later offset, they are read again and recognised.
            log.warning("Kafka did not take the offsets of a batch: %s", error)
            self.init_checkpoint()

    def _enough(self) -> bool:
        return self.sink.size >= LARGEST_BATCH or self._waiting() < FAR_BEHIND

    def _waiting(self) -> int:
        """Records of our partitions that Kafka holds and we have not read, as the last fetches told."""
        waiting = 0
        for position in self.consumer.position(self.consumer.assignment()):
            _, end = self.consumer.get_watermark_offsets(position, cached=True)
            if position.offset >= 0:
                waiting += max(0, end - position.offset)
        return waiting


class BatchApplication(Application):  # type: ignore[misc]
    """A Quix Streams application with one ClickHouseSink; it waits for a Kafka that is away."""

    def __init__(self, bootstrap_servers: str, consumer_group: str, sink: ClickHouseSink) -> None:
        super().__init__(
            broker_address=bootstrap_servers,
            consumer_group=consumer_group,
            auto_offset_reset="earliest",
            consumer_poll_timeout=POLL_S,
            consumer_extra_config={"session.timeout.ms": SESSION_TIMEOUT_MS, "heartbeat.interval.ms": 1_500},
            on_consumer_error=_wait_out,
            auto_create_topics=False,
            use_changelog_topics=False,
            broker_availability_timeout=0,
            loglevel=None,
            state_dir=Path(tempfile.gettempdir()),  # without state nothing is written, but the directory is made
        )
        self.assigned = False
        self._sink = sink
        plain = self._processing_context
        self._processing_context = BatchContext(**{f.name: getattr(plain, f.name) for f in fields(plain) if f.init})
        self._processing_context.sink = sink

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._sink.forget()
        super()._on_assign(consumer, partitions)
        self.assigned = True
        log.info("reading %s", ", ".join(f"{p.topic}[{p.partition}]" for p in partitions) or "no partition")

    def _on_revoke(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self.assigned = False
        try:
            super()._on_revoke(consumer, partitions)
        finally:
            self._sink.forget()

    def _on_lost(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        """Someone else has read these records by now: neither their rows nor their offsets are ours to write."""
        self.assigned = False
        self._sink.forget()
        self._processing_context.init_checkpoint()
        super()._on_lost(consumer, partitions)


def _wait_out(error: Exception, _message: Any, _logger: logging.Logger) -> bool:
    """Errors that Kafka's client gets over by itself are logged, all others end the process."""
    if not isinstance(error, KafkaConsumerException) or error.error.fatal():
        return False
    log.warning("reading from Kafka: %s", error.error.str())
    return True
