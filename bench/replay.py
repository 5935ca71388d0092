"""`tracker replay` of a recorded hour, and of a day, of one busy symbol: times real time, start-up included; memory."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from confluent_kafka import Producer

from bench.harness import Figure
from bench.stores import cores, stores
from bench.trades import EPOCH_MS, Trades
from flows.channels import create_topics, imported
from flows.partitioning import partition_of

HOUR_MS = 3_600_000
HEARTBEAT_AFTER_MS = 2000


@dataclass(frozen=True)
class Run:
    """One process: its wall time from start to end, its peak memory, its manifest."""

    seconds: float
    peak_mb: float
    trades: int
    sha256: str


def run(*, n: int = 5_000_000, hours: int = 24, runs: int = 3) -> list[Figure]:
    """`n` trades a day; the hour is the first of them. The best of `runs`, as the machine is shared."""
    own, measured = cores()
    with stores(own) as (brokers, _), TemporaryDirectory() as directory:
        fill(brokers, "bench-replay", n, hours)
        hour = [replay(brokers, Path(directory), EPOCH_MS + HOUR_MS, measured) for _ in range(runs)]
        whole = [
            replay(brokers, Path(directory), EPOCH_MS + hours * HOUR_MS, measured) for _ in range(max(1, runs - 2))
        ]
    if len({one.sha256 for one in hour}) > 1 or len({one.sha256 for one in whole}) > 1:
        raise RuntimeError("the runs do not agree")
    best, day = min(hour, key=lambda one: one.seconds), min(whole, key=lambda one: one.seconds)
    return [
        Figure(f"an hour of {best.trades:,} trades", 3600 / best.seconds, "x", "real time", 3600 / best.seconds),
        Figure("the same, start-up included", best.seconds, "s"),
        Figure(f"{hours} hours of {day.trades:,} trades", day.seconds, "s", "real time", hours * 3600 / day.seconds),
        Figure("rate", day.trades / day.seconds, "trades/s"),
        Figure("peak memory, an hour", best.peak_mb, "MB"),
        Figure(f"peak memory, {hours} hours", day.peak_mb, "MB", "an hour", day.peak_mb / best.peak_mb),
    ]


def replay(brokers: str, directory: Path, end_ms: int, core: int | None) -> Run:
    """Run the command once."""
    command = [
        sys.executable, "-m", "tracker", "replay", "--topic", "bench-replay", "--from", str(EPOCH_MS // 1000 * 1000),
        "--to", str(end_ms), "--out", str(directory / "out.jsonl"),
    ]  # fmt: skip
    began = time.perf_counter()
    with (directory / "stdout").open("wb") as stdout:
        process = subprocess.Popen(command, stdout=stdout, env={**os.environ, "BROKERS": brokers})
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {process.returncode}")
    manifest = json.loads((directory / "stdout").read_text())
    kilo = 1 if sys.platform == "darwin" else 1024
    return Run(seconds, usage.ru_maxrss * kilo / 1e6, manifest["trades"], manifest["sha256"])


def fill(brokers: str, topic: str, n: int, hours: int) -> None:
    """Trades of one symbol evenly over `hours`, and what an import adds: a heartbeat a partition for each second."""
    create_topics(brokers, [imported(topic)])
    producer = Producer(
        {"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 20, "compression.type": "lz4",
         "queue.buffering.max.messages": 500_000}
    )  # fmt: skip
    failures: list[object] = []
    trades = Trades(symbols=1)
    partition = partition_of(trades.names[0], 8)
    span_ms, second = hours * HOUR_MS, EPOCH_MS // 1000 * 1000
    for start in range(0, n, 5000):
        times = [EPOCH_MS + at * span_ms // n for at in range(start, min(n, start + 5000))]
        for symbol, value, event in trades.take(times):
            while event >= second + HEARTBEAT_AFTER_MS:
                for beaten in range(8):
                    beat = b'{"e":"heartbeat","E":%d}' % (second + HEARTBEAT_AFTER_MS)
                    _put(producer, failures, topic, beaten, beat, None, second + HEARTBEAT_AFTER_MS)
                second += 1000
            _put(producer, failures, topic, partition, value, symbol, event)
        producer.poll(0)
    if producer.flush(60) or failures:
        raise RuntimeError(f"not every record was delivered: {failures[:3]}")


def _put(
    producer: Producer, failures: list[object], topic: str, partition: int, value: bytes, key: str | None, at_ms: int
) -> None:
    while True:
        try:
            producer.produce(
                topic,
                value,
                key,
                partition,
                timestamp=at_ms,
                on_delivery=lambda e, _: failures.append(e) if e else None,
            )
        except BufferError:
            producer.poll(0.05)
        else:
            return
