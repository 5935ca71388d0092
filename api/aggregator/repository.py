"""The topic `tracker.subscriptions`, followed from its beginning and written with confirmation.

The topic is the truth: a write is answered when this process has read it back, so several
instances agree, and a restart changes nothing. Two threads wait inside librdkafka, one for
records and one for confirmations; whatever they hear is handled on the event loop.
"""

import asyncio
import logging
import threading
from functools import partial
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from api.aggregator.errors import NotAvailable
from api.aggregator.subscriptions import Subscriptions, record_key, record_value
from flows.channels import PARTITIONER, Topic, create_topics
from infra.tls import kafka_security

WRITE_TIMEOUT_MS = 3000
READ_BACK_TIMEOUT_S = 5.0
_POLL_S = 0.5
_RETRY_S = 1.0
_STOP_TIMEOUT_S = 3.0
_PROBE_TIMEOUT_S = 1.5

log = logging.getLogger(__name__)


class SubscriptionLog:
    """`state` is the topic's fold up to `position`; both change on the event loop only."""

    def __init__(self, bootstrap_servers: str, topic: Topic) -> None:
        self.state = Subscriptions()
        self._bootstrap_servers = bootstrap_servers
        self._topic = topic
        self._producer = self._new_producer()
        self._position = -1  # the offset read last
        self._complete = False  # read to the end once
        self._advanced = asyncio.Event()
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to follow the topic, as soon as there is a broker. Call it on the event loop."""
        loop = asyncio.get_running_loop()
        for work in (self._follow, self._confirm):
            thread = threading.Thread(target=work, args=(loop,), name=work.__name__, daemon=True)
            thread.start()
            self._threads.append(thread)

    async def stop(self) -> None:
        """Stop following; a thread that waits for a broker that is away is left behind."""
        self._stopping.set()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, _STOP_TIMEOUT_S)

    async def unavailable(self) -> str | None:
        """None when it can be read and written, else the reason."""
        try:
            await asyncio.to_thread(self._producer.list_topics, timeout=_PROBE_TIMEOUT_S)
        except KafkaException as error:
            return f"Kafka at {self._bootstrap_servers}: {error.args[0].str()}"
        if not all(thread.is_alive() for thread in self._threads):
            return "the subscriptions are not followed any more; the log says why"
        return None if self._complete else "the subscriptions are still being read"

    def require_complete(self) -> None:
        """Raises NotAvailable until the topic has been read to its end."""
        if not self._complete:
            raise NotAvailable("the subscriptions are still being read")

    async def add(self, symbol: str, user: str, until_ms: int | None = None) -> None:
        """Write a subscription or lease (symbol uppercase) and read it back. Raises NotAvailable."""
        await self._write(record_key(symbol, user), record_value(symbol, user, until_ms))

    async def remove(self, symbol: str, user: str) -> None:
        """Take a subscription back, there or not. Raises NotAvailable."""
        await self._write(record_key(symbol, user), None)

    async def _write(self, key: bytes, value: bytes | None) -> None:
        # Written even where it seems to change nothing: another instance may just have changed it.
        self.require_complete()
        offset = await self._produce(key, value)
        try:
            async with asyncio.timeout(READ_BACK_TIMEOUT_S):
                while self._position < offset:
                    await self._advanced.wait()
        except TimeoutError as error:
            raise NotAvailable("what was written can't be read back yet") from error

    async def _produce(self, key: bytes, value: bytes | None) -> int:
        """The offset of the record, once the broker has it."""
        loop = asyncio.get_running_loop()
        written: asyncio.Future[int] = loop.create_future()

        def settle(error: KafkaError | None, offset: int | None) -> None:
            if written.done():
                return
            if error is None and offset is not None:
                written.set_result(offset)
            else:
                written.set_exception(NotAvailable(f"Kafka did not take the change: {error}"))

        def delivered(error: KafkaError | None, message: Message) -> None:
            if not self._stopping.is_set():
                loop.call_soon_threadsafe(settle, error, message.offset())

        try:
            self._producer.produce(self._topic.name, value, key, partition=0, on_delivery=delivered)
        except (KafkaException, BufferError) as error:
            if isinstance(error, KafkaException) and error.args[0].fatal():
                log.error("a new producer, the old one is beyond repair: %s", error)
                self._producer = self._new_producer()
            raise NotAvailable(f"Kafka does not take changes: {error}") from error
        return await written

    def _connection(self, doing: str) -> dict[str, Any]:
        return {
            **kafka_security(),
            "bootstrap.servers": self._bootstrap_servers,
            "reconnect.backoff.max.ms": 1000,
            "log_level": 0,  # what matters comes to the callback
            "error_cb": partial(_log_error, doing),
        }

    def _new_producer(self) -> Producer:
        return Producer(
            {
                **self._connection("writing"),
                "enable.idempotence": True,
                "partitioner": PARTITIONER,
                "linger.ms": 0,
                "message.timeout.ms": WRITE_TIMEOUT_MS,
            }
        )

    def _confirm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Thread: serves the producer's confirmations."""
        while not self._stopping.is_set():
            self._producer.poll(_POLL_S)

    def _follow(self, loop: asyncio.AbstractEventLoop) -> None:
        """Thread: creates the topic if need be, then reads it for ever."""
        while not self._stopping.is_set():
            try:
                self._producer.list_topics(timeout=_PROBE_TIMEOUT_S)  # says sooner that there is no broker
                create_topics(self._bootstrap_servers, [self._topic])
                break
            except KafkaException as error:
                log.warning("waiting for Kafka at %s: %s", self._bootstrap_servers, error.args[0].str())
                self._stopping.wait(_RETRY_S)
        consumer = Consumer(
            {
                **self._connection("reading"),
                "group.id": f"aggregator-{self._topic.name}",  # asked for by the client, not used
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            }
        )
        consumer.assign([TopicPartition(self._topic.name, 0, OFFSET_BEGINNING)])
        while not self._stopping.is_set():
            # `consume` alone would wait for a full batch.
            if (first := consumer.poll(_POLL_S)) is not None:
                loop.call_soon_threadsafe(self._take_in, [first, *consumer.consume(1000, 0)])
        consumer.close()

    def _take_in(self, messages: list[Message]) -> None:
        for message in messages:
            error = message.error()
            if error is None:
                if not self.state.apply(message.key(), message.value()):
                    log.warning("%s: offset %d is no subscription", self._topic.name, message.offset())
                self._position = message.offset()
            elif error.code() == KafkaError._PARTITION_EOF:
                if not self._complete:
                    log.info("read %d symbols' subscriptions", len(self.state.counts()))
                self._complete = True
            else:
                log.warning("%s: %s", self._topic.name, error.str())
        self._advanced.set()
        self._advanced.clear()


def _log_error(doing: str, error: KafkaError) -> None:
    log.warning("%s subscriptions: %s", doing, error.str())
