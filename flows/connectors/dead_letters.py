"""Poison records of a Quix Streams sink: to `<topic>.dlq`, delivered before their offsets are committed."""

from collections.abc import Sequence
from dataclasses import dataclass

from confluent_kafka import KafkaError, Message, Producer

from flows.channels import LARGEST_DEAD_LETTER, PARTITIONER
from flows.domain.errors import DeliveryFailed
from infra.tls import kafka_security

DELIVERY_TIMEOUT_S = 5


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that can't be used: where it stood, what it was, and why."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int
    reason: str

    @classmethod
    def of(cls, message: Message, reason: str) -> "DeadLetter":
        """From the message as it was read."""
        return cls(
            message.topic(),
            message.partition(),
            message.offset(),
            message.key(),
            message.value(),
            message.timestamp()[1],
            reason,
        )

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """The headers of the DLQ record."""
        return [
            ("source_topic", self.topic.encode()),
            ("source_partition", str(self.partition).encode()),
            ("source_offset", str(self.offset).encode()),
            ("reason", self.reason.encode(errors="replace")),
        ]


class DeadLetters:
    """Writes dead letters and waits for their delivery."""

    def __init__(self, bootstrap_servers: str) -> None:
        self._producer = Producer(
            {
                **kafka_security(),
                "bootstrap.servers": bootstrap_servers,
                "enable.idempotence": True,
                "partitioner": PARTITIONER,
                "message.max.bytes": LARGEST_DEAD_LETTER,
                "message.timeout.ms": DELIVERY_TIMEOUT_S * 1000,
            }
        )

    def send(self, letters: Sequence[DeadLetter]) -> None:
        """Raises DeliveryFailed unless every one is confirmed; some may have arrived then, and do so again."""
        if not letters:
            return
        failures: list[KafkaError] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failures.append(error)

        for letter in letters:
            self._producer.produce(
                f"{letter.topic}.dlq",
                key=letter.key,
                value=letter.value,
                timestamp=max(letter.timestamp, 0),
                headers=letter.headers,
                on_delivery=delivered,
            )
        if self._producer.flush(2 * DELIVERY_TIMEOUT_S) or failures:
            reason = failures[0].str() if failures else "no answer"
            raise DeliveryFailed(f"Kafka did not take {len(letters)} dead letters: {reason}")
