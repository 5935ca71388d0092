"""Appends to Kafka with every delivery checked, without ever blocking the event loop."""

import threading

from confluent_kafka import KafkaError, Message, Producer

from flows.domain.errors import DeliveryFailed

HIGH_WATER = 100_000  # records waiting for the broker; above it the sockets are not read
LOW_WATER = 20_000


class KafkaLog:
    """An idempotent producer with a thread that takes the delivery reports.

    A broker that is away is waited for; a record that it refuses for good makes `check` raise.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "compression.type": "lz4",
                "linger.ms": 5,
                "queue.buffering.max.messages": 4 * HIGH_WATER,
                "queue.buffering.max.kbytes": 256 * 1024,
                "message.timeout.ms": 0,
            }
        )
        self._error: KafkaError | None = None
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
        self._producer.produce(
            topic,
            value=value,
            key=key,
            partition=partition,
            timestamp=timestamp,
            headers=headers,
            on_delivery=self._delivered,
        )

    @property
    def backlog(self) -> int:
        """Records that the broker has not confirmed."""
        return len(self._producer)

    def check(self) -> None:
        """Raise DeliveryFailed if a record was lost."""
        if self._error is not None:
            raise DeliveryFailed(f"Kafka refused a record: {self._error.str()}")

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

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._error = error
