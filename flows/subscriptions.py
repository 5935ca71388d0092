"""Following the compacted topic `tracker.subscriptions`: who wants which symbol."""

import logging
import threading
from collections.abc import Callable

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from flows.channels import SUBSCRIPTIONS
from infra.tls import kafka_security

log = logging.getLogger(__name__)


class _Subscription(msgspec.Struct):
    symbol: str
    user: str


_decoder = msgspec.json.Decoder(_Subscription)


class SubscriptionFollower:
    """Reads the topic from its beginning in a thread of its own and stays with it.

    `changed` is called from that thread with the symbols that have a subscriber: first when the beginning has been
    read whole, then at each change.
    """

    def __init__(self, bootstrap_servers: str, changed: Callable[[frozenset[str]], object]) -> None:
        self._consumer = Consumer(
            {
                **kafka_security(),
                "bootstrap.servers": bootstrap_servers,
                "group.id": "subscription-follower",  # never joined: partitions are assigned by hand
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
            }
        )
        self._changed = changed
        self._stop = threading.Event()
        self._by_key: dict[bytes, str] = {}
        self._told: frozenset[str] | None = None
        self._thread = threading.Thread(target=self._follow, name="subscriptions", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._consumer.assign([TopicPartition(SUBSCRIPTIONS.name, 0, OFFSET_BEGINNING)])
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _follow(self) -> None:
        whole = False
        while not self._stop.is_set():
            for message in self._consumer.consume(1000, timeout=0.1):
                if message.error() is None:
                    self._take(message.key() or b"", message.value())
                else:
                    whole = True  # the end of the partition; other errors are librdkafka's to mend
            if whole:
                self._tell()

    def _take(self, key: bytes, value: bytes | None) -> None:
        if value is None:
            self._by_key.pop(key, None)
            return
        try:
            self._by_key[key] = _decoder.decode(value).symbol.upper()
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.warning("%s: ignoring the record with key %r: %s", SUBSCRIPTIONS.name, key, error)

    def _tell(self) -> None:
        symbols = frozenset(self._by_key.values())
        if symbols != self._told:
            self._told = symbols
            self._changed(symbols)
