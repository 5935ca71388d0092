"""From the end of a second to its SecondStat on Redis, with trades written straight to the raw topic.

The flow runs as it does live, in a process of its own, on a broker and a Redis-protocol server of the benchmark's own.
Trades are written at a steady rate, each with E = now, and a heartbeat to each partition every 100 ms. A second
can't be published before E has passed its end by the allowed lateness; what is measured comes on top of that.
"""

import json
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event as EventType
from pathlib import Path

from confluent_kafka import Producer
from redis import Redis

from bench.harness import Figure
from bench.stores import stores
from bench.trades import Trades
from flows.channels import PARTITIONER, RAW_AGGTRADE, raw_aggtrade
from flows.recovery import make_recovery
from infra.local.part import LOOPBACK, Part, free_port, spawn, stop, wait_ready

ALLOWED_LATENESS_MS = 200
GOAL_P99_MS = ALLOWED_LATENESS_MS + 150
TICK_S = 0.005
WARM_UP_S = 5  # not counted: the flow's start, and its reading of what came before it ran
HEARTBEAT_S = 0.1

Arrival = tuple[int, float, int]  # second, ms from its end, revision


def listen(redis: str, over: EventType, results: "Connection[list[Arrival], None]") -> None:
    """Note when each SecondStat comes in on Redis, until `over`: a process of its own, which waits for no one else."""
    host, _, port = redis.partition(":")
    pubsub = Redis(host=host, port=int(port)).pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
    pubsub.psubscribe("*")
    seen: list[Arrival] = []
    while not over.is_set():
        message = pubsub.get_message(timeout=0.2)
        if message is not None:
            now_ms = time.time() * 1000
            stat = json.loads(message["data"])
            seen.append((stat["timestamp"], now_ms - stat["timestamp"] - 1000, stat["revision"]))
    results.send(seen)


def produce(brokers: str, rate: int, seconds: int, symbols: int) -> float:
    """Write trades at `rate` a second for so long; the worst delay behind plan in s."""
    producer = Producer(
        {"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 5, "compression.type": "lz4",
         "partitioner": PARTITIONER, "queue.buffering.max.messages": 500_000}
    )  # fmt: skip
    failures: list[object] = []
    trades, partitions = Trades(symbols), raw_aggtrade(1).partitions
    began = time.time()
    sent, worst, next_heartbeat = 0, 0.0, began

    def confirm(error: object, _message: object) -> None:
        if error is not None:
            failures.append(error)

    while (now := time.time()) < began + seconds:
        now_ms = int(now * 1000)
        due = int((now - began) * rate)
        worst = max(worst, (due - sent) / rate)
        received = [("received_ms", str(now_ms).encode()), ("source", b"live")]
        for symbol, value, event in trades.take([now_ms] * (due - sent)):
            producer.produce(RAW_AGGTRADE, value, symbol, timestamp=event, headers=received, on_delivery=confirm)
        sent = due
        if now >= next_heartbeat:
            next_heartbeat += HEARTBEAT_S
            beat = b'{"e":"heartbeat","E":%d}' % now_ms
            for partition in range(partitions):
                producer.produce(RAW_AGGTRADE, beat, partition=partition, timestamp=now_ms, headers=received[:1])
        producer.poll(0)
        time.sleep(max(0.0, now + TICK_S - time.time()))
    if producer.flush(30) or failures:
        raise RuntimeError(f"not every trade was delivered: {failures[:3]}")
    return worst


def run(*, rate: int = 20_000, seconds: int = 30, symbols: int = 200) -> list[Figure]:
    """Percentiles in ms; `ratio` is to the goal for p99, the allowed lateness included."""
    with stores() as (brokers, redis), tempfile.TemporaryDirectory(prefix="tracker-bench-") as directory:
        data, health = Path(directory), free_port()
        recovery = data / "recovery"
        command = [
            sys.executable,
            "-m",
            "bytewax.run",
            "flows.second_stats",
            "-r",
            str(recovery),
            "-s",
            "10",
            "-b",
            "0",
        ]
        environment = {
            "BROKERS": brokers, "REDIS_ADDR": redis, "HEALTH_PORT": str(health), "HOST": LOOPBACK,
            "ALLOWED_LATENESS_MS": str(ALLOWED_LATENESS_MS),
        }  # fmt: skip
        flow = Part(
            "second-stats", command, f"http://{LOOPBACK}:{health}/readyz", env=environment,
            prepare=lambda: make_recovery(recovery),
        )  # fmt: skip
        flow.prepare()
        process = spawn(flow, data / "flow.log")
        spawning = get_context("spawn")
        over, (results, listener_end) = spawning.Event(), spawning.Pipe(duplex=False)
        listener = spawning.Process(target=listen, args=(redis, over, listener_end), daemon=True)
        listener.start()
        try:
            wait_ready(flow, process)
            began_ms = time.time() * 1000
            behind = produce(brokers, rate, WARM_UP_S + seconds, symbols)
            time.sleep(1.0)  # the last second's SecondStats are on their way; the open ones never come
            over.set()
            seen = results.recv()
        finally:
            over.set()
            stop(flow, process)
            listener.join(5)
    first = began_ms + 1000 * WARM_UP_S
    late = sorted(ms for second, ms, revision in seen if second >= first and not revision)
    if not late:
        raise RuntimeError("no SecondStat came")

    def percentile(share: float) -> float:
        return float(late[min(len(late) - 1, int(share * len(late)))])

    return [
        Figure("second's end to Redis, p50", percentile(0.50), "ms"),
        Figure("second's end to Redis, p95", percentile(0.95), "ms"),
        Figure(
            "second's end to Redis, p99",
            percentile(0.99),
            "ms",
            f"goal {GOAL_P99_MS} ms",
            percentile(0.99) / GOAL_P99_MS,
        ),
        Figure("second's end to Redis, worst", late[-1], "ms"),
        Figure("SecondStats counted", len(late), ""),
        Figure("writer behind its plan, worst", behind * 1000, "ms"),
    ]
