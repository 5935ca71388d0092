"""Appends to Kafka with every delivery checked, without ever blocking the event loop."""

import threading
from collections.abc import Callable

from confluent_kafka import KafkaError, Message, Producer

from flows.domain.errors import DeliveryFailed
from infra.tls import kafka_security

HIGH_WATER = 100_000  # records waiting for the broker; above it the sockets are not read
LOW_WATER = 20_000
QUEUE = 10 * HIGH_WATER  # what held frames may add at once


class _Place:
    """A partition: how many records went there, how many of them the broker has confirmed (in this order)."""

    __slots__ = ("_failed", "appended", "delivered", "report")

    def __init__(self, failed: Callable[[KafkaError], None]) -> None:
        self.appended = self.delivered = 0
        self._failed = failed
        self.report = self._report  # one bound method for all records

    def _report(self, error: KafkaError | None, _message: Message) -> None:
        self.delivered += 1
        if error is not None:
            self._failed(error)


class KafkaLog:
    """An idempotent producer with a thread that takes the delivery reports.

    A broker that is away is waited for; a record that it refuses for good makes `check` raise.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._producer = Producer(
            {
                **kafka_security(),
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "queue.buffering.max.messages": QUEUE,
                "queue.buffering.max.kbytes": 512 * 1024,
                "message.timeout.ms": 0,
            }
        )
        self._error: KafkaError | None = None
        self._places: dict[tuple[str, int], _Place] = {}
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="deliveries", daemon=True)
        self._thread.start()

    def append(
        self,
        topic: str,
        partition: int,
        value: bytes,
        *,
        key: str | None,
        timestamp: int,
        headers: list[tuple[str, bytes]],
    ) -> None:
        """Queue one record; timestamp in ms. Raises BufferError when far more is queued than HIGH_WATER."""
        place = self._places.get((topic, partition))
        if place is None:
            place = self._places[topic, partition] = _Place(self._failed)
        self._producer.produce(topic, value, key, partition, place.report, timestamp=timestamp, headers=headers)
        place.appended += 1

    def appended(self, topic: str, partition: int) -> int:
        """How many records were queued for a partition so far."""
        place = self._places.get((topic, partition))
        return place.appended if place else 0

    def delivered(self, topic: str, partition: int) -> int:
        """How many of these the broker has confirmed: the first ones, as it keeps their order."""
        place = self._places.get((topic, partition))
        return place.delivered if place else 0

    @property
    def backlog(self) -> int:
        """Records that the broker has not confirmed."""
        return len(self._producer)

    def check(self) -> None:
        """Raise DeliveryFailed if a record was lost."""
        if self._error is not None:
            raise DeliveryFailed(f"Kafka refused a record: {self._error.str()}")

    def flush(self, timeout_s: float) -> None:
        """Wait until the broker has confirmed all, for a while at most."""
        self._producer.flush(timeout_s)

    def close(self, timeout_s: float) -> None:
        """Wait for what is queued. Raises DeliveryFailed if it could not be delivered in time."""
        self._closed.set()
        self._thread.join()
        left = self._producer.flush(timeout_s)
        self.check()
        if left:
            raise DeliveryFailed(f"{left} records were not confirmed by Kafka within {timeout_s:.0f} s")

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._producer.poll(0.2)

    def _failed(self, error: KafkaError) -> None:
        self._error = error
