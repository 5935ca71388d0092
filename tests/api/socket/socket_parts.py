"""What the tests of the socket service hold on to."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import grpc
from confluent_kafka import Producer

from api.socket.server import SocketServer
from flows.channels import Topic
from flows.partitioning import partition_of

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "币安人生USDT")
T0 = 1_790_000_000_000


@dataclass
class Aggregator:
    """A stand-in for the aggregator's `/coin`, over real HTTP: who holds what, and what was called."""

    up: bool = True
    holders: dict[str, set[str]] = field(default_factory=dict)
    calls: list[tuple[str, str, str | None]] = field(default_factory=list)

    def holds(self, symbol: str) -> bool:
        return bool(self.holders.get(symbol))


@dataclass
class Socket:
    """A running server on topics of the test's own."""

    stub: Any
    channel: grpc.aio.Channel
    server: SocketServer
    trades: Topic
    minitickers: Topic
    brokers: str
    aggregator: Aggregator

    def produce(self, topic: Topic, records: Iterable["Raw"]) -> None:
        """As ingest does; all delivered."""
        producer = Producer({"bootstrap.servers": self.brokers, "linger.ms": 5})
        errors: list[Any] = []
        for record in records:
            producer.produce(
                topic.name,
                record.value,
                record.symbol,
                partition=record.partition
                if record.partition is not None
                else partition_of(record.symbol or "", topic.partitions),
                timestamp=record.time_ms,
                headers=[("received_ms", str(record.time_ms + 7).encode()), *record.more_headers],
                on_delivery=lambda error, _: errors.append(error) if error else None,
            )
            producer.poll(0)
        assert producer.flush(30) == 0
        assert not errors


@dataclass(frozen=True)
class Raw:
    symbol: str | None
    value: bytes
    time_ms: int
    partition: int | None = None
    more_headers: tuple[tuple[str, bytes], ...] = (("source", b"live"),)


def trade(symbol: str, number: int, time_ms: int = T0, source: bytes = b"live") -> Raw:
    # Odd spacing on purpose: the bytes have to come through as they are.
    value = f'{{"e":"aggTrade", "E":{time_ms},"s":"{symbol}","a":{number},"p":"1.0" }}'
    return Raw(symbol, value.encode(), time_ms, more_headers=(("source", source),))


def heartbeat(partition: int, time_ms: int = T0) -> Raw:
    return Raw(None, b'{"e":"heartbeat","E":%d}' % time_ms, time_ms, partition, ())


def subscription(symbol: str, time_ms: int = T0) -> Raw:
    value = json.dumps({"e": "subscription", "s": symbol, "on": True, "E": time_ms}).encode()
    return Raw(symbol, value, time_ms, None, ())


async def take(stream: AsyncIterator[Any], count: int, seconds: float = 60) -> list[Any]:
    """The next messages of a stream."""
    async with asyncio.timeout(seconds):
        return [await anext(stream) for _ in range(count)]


async def until(condition: Any, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - it is another process' state
            await asyncio.sleep(0.02)
