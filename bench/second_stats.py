"""Trades in Kafka to SecondStats: the production dataflow on one core, beside plain loops and other stream processors.

Every run is a process of its own, pinned to one core with all its threads; the stores run on another. With
`--bootstrap`, `--topic` and `--n` it is one run, in this process, over a topic that ../shared/peers/second_stats made.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from confluent_kafka import Producer

from bench.flow_run import measure
from bench.harness import Figure
from bench.stores import cores, stores
from bench.trades import EPOCH_MS, Trades
from flows.channels import PARTITIONER, Topic, create_topics

PARTITIONS = 4
PEERS = ("raw", "orjson", "fold")


def run(
    *,
    bootstrap: str | None = None,
    topic: str | None = None,
    n: int = 1_000_000,
    sinks: str = "count",
    redis: str = "",
    processes: int = 1,
    symbols: int = 200,
    per_ms: int = 20,
    runs: int = 3,
) -> list[Figure] | dict[str, Any]:
    """One result line for a topic that is there; else figures with ratios to the peers. `per_ms` is of event time."""
    if bootstrap and topic:
        return measure(bootstrap, topic, n, sinks, redis, processes)
    own, measured = cores()
    with stores(own) as (brokers, valkey):
        fill(brokers, "bench-trades", n, symbols, per_ms)
        where = ["--bootstrap", brokers, "--topic", "bench-trades", "--n", str(n)]
        commands = {peer: ["bench.peers", peer, *where] for peer in PEERS}
        commands["tracker"] = ["bench.flow_run", *where]
        commands["tracker, Kafka and Redis"] = ["bench.flow_run", *where, "--sinks", "real", "--redis", valkey]
        lines = {name: [one(command, measured) for _ in range(runs)] for name, command in commands.items()}
    answers = {(line["stats"], line["check"]) for many in lines.values() for line in many if line["stats"]}
    if len(answers) > 1:
        raise RuntimeError(f"the runs do not agree: {lines}")
    rates = {name: median(line["rate"] for line in many) for name, many in lines.items()}
    return [
        Figure(name, rate, "trades/s", f"{peer} ({rates[peer]:,.0f}/s)", rate / rates[peer])
        for name, rate in rates.items()
        if name not in PEERS
        for peer in rates
        if peer != name and (peer in PEERS or name != "tracker")
    ]


def one(command: list[str], core: int | None) -> dict[str, Any]:
    """The result line of one run."""
    pin = ["taskset", "-c", str(core)] if core is not None and shutil.which("taskset") else []
    done = subprocess.run(
        [*pin, sys.executable, "-m", *command],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    line: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return line


def fill(brokers: str, topic: str, n: int, symbols: int, per_ms: int) -> None:
    """Make a topic of n trades. Raises RuntimeError if one was not delivered."""
    create_topics(brokers, [Topic(topic, PARTITIONS, {"retention.ms": "-1", "compression.type": "lz4"})])
    producer = Producer(
        {
            "bootstrap.servers": brokers,
            "enable.idempotence": True,
            "linger.ms": 20,
            "batch.size": 1_000_000,
            "compression.type": "lz4",
            "partitioner": PARTITIONER,
            "queue.buffering.max.messages": 500_000,
        }
    )
    failures: list[object] = []
    trades = Trades(symbols)
    for start in range(0, n, 5000):
        times = [EPOCH_MS + at // per_ms for at in range(start, min(n, start + 5000))]
        for symbol, value, event in trades.take(times):
            while True:
                try:
                    producer.produce(
                        topic,
                        value,
                        symbol,
                        timestamp=event,
                        on_delivery=lambda e, _: failures.append(e) if e else None,
                    )
                    break
                except BufferError:
                    producer.poll(0.05)
        producer.poll(0)
    if producer.flush(60) or failures:
        raise RuntimeError(f"not every trade was delivered: {failures[:3]}")
