"""The right to write the raw log: one ingest at a time has it, by membership of a one-partition consumer group.

The group's one partition is that of the gap ledger, whose only writer the holder is. Cooperative assignment leaves it
with its holder when others join; they stand by. The broker gives it to one of them at once when the holder leaves,
or SESSION_MS after it died.
"""

import asyncio
import logging
import threading
from typing import Any

from confluent_kafka import Consumer, KafkaException

from flows import channels
from infra.tls import kafka_security

log = logging.getLogger(__name__)

GROUP = "ingest"
SESSION_MS = 6000  # the least that brokers allow by default
HEARTBEAT_MS = 1500


class Lease:
    """`held` and `gone` are each other's opposite, for the event loop that made the lease."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.held, self.gone = asyncio.Event(), asyncio.Event()
        self.gone.set()
        self._loop = asyncio.get_running_loop()
        self._closing = threading.Event()
        self._consumer = Consumer(
            {
                **kafka_security(),
                "bootstrap.servers": bootstrap_servers,
                "group.id": GROUP,
                "session.timeout.ms": SESSION_MS,
                "heartbeat.interval.ms": HEARTBEAT_MS,
                "partition.assignment.strategy": "cooperative-sticky",
                "enable.auto.commit": False,
            }
        )
        self._thread = threading.Thread(target=self._stay, name="lease", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Give the lease up; whoever stands by gets it at once. Call when nothing is written any more."""
        self._closing.set()
        self._thread.join()

    def _stay(self) -> None:
        self._consumer.subscribe(
            [channels.GAPS.name], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked
        )
        while not self._closing.is_set():
            self._consumer.poll(0.1)  # nothing comes: the partition is paused
        self._consumer.close()

    def _assigned(self, consumer: Any, partitions: list[Any]) -> None:
        consumer.incremental_assign(partitions)
        try:
            consumer.pause(partitions)
        except KafkaException as error:
            log.debug("pausing the lease's partition: %s", error)
        if partitions:
            log.info("this ingest writes the log")
            self._tell(True)

    def _revoked(self, _consumer: Any, partitions: list[Any]) -> None:
        if partitions:
            log.warning("the right to write the log is gone")
            self._tell(False)

    def _tell(self, has: bool) -> None:
        def change() -> None:
            (self.held if has else self.gone).set()
            (self.gone if has else self.held).clear()

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(change)
