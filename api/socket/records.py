"""Records of the raw log as they go over the wire, and the blocks they travel in."""

import logging
from collections.abc import Iterable, Set
from dataclasses import dataclass

from confluent_kafka import Message
from prometheus_client import Counter

from protos.market_pb2 import RawResponse

UNREADABLE = Counter("socket_unreadable_records", "Records of raw topics that are not as ingest writes them", ["topic"])

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Record:
    """A payload of the exchange; `frame` is its RawResponse as a gRPC message, length prefix included."""

    offset: int
    symbol: str
    frame: bytes


@dataclass(slots=True)
class Block:
    """Successive offsets [start, next) of a partition; heartbeats and the like have no record in it."""

    start: int
    next: int
    time_ms: int  # of the last record in Kafka
    records: list[Record]
    symbols: frozenset[str]

    def frames(self, symbols: Set[str] | None, from_offset: int) -> list[bytes]:
        """The frames of `symbols` (None: all) from an offset on."""
        records: Iterable[Record] = self.records
        if from_offset > self.start:
            records = (one for one in records if one.offset >= from_offset)
        if symbols is None or symbols >= self.symbols:
            return [one.frame for one in records]
        return [one.frame for one in records if one.symbol in symbols]

    @property
    def size(self) -> int:
        """Bytes of its frames."""
        return sum(len(one.frame) for one in self.records)


def block_of(start: int, messages: list[Message]) -> Block:
    """The block of the messages of one partition that follow each other from `start`; not empty."""
    records = [record for record in map(record_of, messages) if record is not None]
    last = messages[-1]
    return Block(start, last.offset() + 1, last.timestamp()[1], records, frozenset(one.symbol for one in records))


def record_of(message: Message) -> Record | None:
    """A message of a raw topic; None for ingest's own records, which name no source, and for those nobody can read."""
    headers = dict(message.headers() or ())
    source, key = headers.get("source"), message.key()
    if source is None or key is None:
        return None
    try:
        symbol = key.decode()
        body = RawResponse(
            payload=message.value() or b"",
            symbol=symbol,
            event_time_ms=message.timestamp()[1],
            receive_time_ms=int(headers.get("received_ms") or 0),
            partition=message.partition(),
            offset=message.offset(),
            source=source.decode(),
        ).SerializeToString()
    except ValueError as error:  # not UTF-8, not a number, or more than 64 bits
        UNREADABLE.labels(message.topic()).inc()
        log.warning("%s: offset %d can't be read: %s", message.topic(), message.offset(), str(error)[:200])
        return None
    return Record(message.offset(), symbol, b"\0" + len(body).to_bytes(4, "big") + body)
