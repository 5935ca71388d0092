"""Ingest: trades a second from the simulated exchange into Kafka, and what one CPU second takes, beside a bare client.

The exchange makes trades at RATE; ingest has 1,100 symbols over its connections. It keeps up if it writes what is made,
with little delay. The peer is the same streams on one `websockets` client that only counts frames, in a process of
its own, at the same time; the ratio is by CPU time, since both get the same trades.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import urlopen

import psutil

from bench.harness import Figure
from flows.channels import all_topics, create_topics
from infra.local.kafka import kafka
from infra.local.part import LOOPBACK, free_port, spawn, stop, wait_ready

RATE, SYMBOLS = 25_000, 1_100
WARM_S, MEASURED_S = 5.0, 15.0
READY_WITHIN_S = 60.0
TRADES = 'ingest_payloads_total{event_type="aggTrade"}'

COUNTER = """
import asyncio, sys
from websockets.asyncio.client import connect
import json

async def main(url, names):
    counted = 0
    async with connect(url, compression=None, max_size=None, max_queue=None) as socket:
        for at in range(0, len(names), 200):
            await socket.send(json.dumps({"method": "SUBSCRIBE", "params": names[at:at + 200], "id": at + 1}))
            await asyncio.sleep(0.4)
        async for _ in socket:
            counted += 1

asyncio.run(main(sys.argv[1], sys.argv[2].split(",")))
"""


@contextmanager
def _process(command: list[str], log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("ab") as output:
        child = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **env})
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _get(url: str) -> bytes:
    with urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback
        body: bytes = answer.read()
    return body


def _until(condition: Callable[[], bool], what: str, log: Path) -> None:
    deadline_s = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            if condition():
                return
        except OSError:
            pass
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"{what} was not ready after {READY_WITHIN_S:.0f} s\n{log.read_text()[-2000:]}")
        time.sleep(0.1)


def _metrics(url: str) -> dict[str, float]:
    lines = (line.rpartition(" ") for line in _get(f"{url}/metrics").decode().splitlines() if line[:1] != "#")
    return {name: float(value) for name, _, value in lines}


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def run() -> list[Figure]:
    """Measure; about a minute."""
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="tracker-bench-") as name:
        directory = Path(name)
        kafka_port, port, health = free_port(), free_port(), free_port()
        part = kafka(directory / "kafka", kafka_port)
        part.prepare()
        broker = spawn(part, directory / "kafka.log")
        stack.callback(stop, part, broker)
        wait_ready(part, broker)
        brokers = f"{LOOPBACK}:{kafka_port}"
        create_topics(brokers, all_topics(10**10))
        exchange, ingest = f"http://{LOOPBACK}:{port}", f"http://{LOOPBACK}:{health}"
        command = [sys.executable, "-m", "infra.local.exchange", "--port", str(port), "--rate", str(RATE)]
        command += ["--symbols", str(SYMBOLS), "--data-dir", str(directory / "exchange")]
        maker = stack.enter_context(_process(command, directory / "exchange.log"))
        _until(lambda: bool(_get(f"{exchange}/readyz")), "the exchange", directory / "exchange.log")
        env = {
            "BROKERS": brokers,
            "EXCHANGE_WS_URL": exchange.replace("http", "ws"),
            "EXCHANGE_REST_URL": exchange,
            "HEALTH_PORT": str(health),
            "SYMBOLS": "*",
        }
        writer = stack.enter_context(_process([sys.executable, "-m", "flows.ingest"], directory / "ingest.log", **env))
        _until(lambda: bool(_get(f"{ingest}/readyz")), "ingest", directory / "ingest.log")
        alone = _measure(exchange, ingest, writer, maker)
        streams = [f"{one.lower()}@aggTrade" for one in json.loads(_get(f"{ingest}/streams"))["aggtrade"]][:1000]
        url = exchange.replace("http", "ws") + "/stream"
        counter = stack.enter_context(
            _process([sys.executable, "-c", COUNTER, url, ",".join(streams)], directory / "counter.log")
        )
        beside = _measure(exchange, ingest, writer, maker, counter)
    peer = "websockets client that only counts frames, by CPU time"
    return [
        Figure("symbols streamed", alone["symbols"], "symbols"),
        Figure("connections", alone["connections"], "connections"),
        Figure("trades made by the exchange", alone["made"], "trades/s"),
        Figure("trades written to Kafka", alone["written"], "trades/s", "made", alone["written"] / alone["made"]),
        Figure("largest delay, exchange to ingest", alone["delay_ms"], "ms"),
        Figure("CPU of ingest", alone["cpu"], "cores"),
        Figure("CPU of the exchange", alone["exchange_cpu"], "cores"),
        Figure(
            "trades a CPU second",
            beside["written"] / beside["cpu"],
            "trades",
            peer,
            (beside["written"] / beside["cpu"]) / (beside["written"] / beside["counter_cpu"]),
        ),
    ]


def _measure(
    exchange: str,
    ingest: str,
    writer: subprocess.Popen[bytes],
    maker: subprocess.Popen[bytes],
    counter: subprocess.Popen[bytes] | None = None,
) -> dict[str, float]:
    """Rates over MEASURED_S, after a while to settle."""
    time.sleep(WARM_S)
    processes = [psutil.Process(one.pid) for one in (writer, maker, *([counter] if counter else []))]
    began_s, metrics = time.monotonic(), _metrics(ingest)
    made = json.loads(_get(f"{exchange}/sim/state"))["trades"]
    cpu = [_cpu_s(process) for process in processes]
    delay_ms = 0.0
    while time.monotonic() - began_s < MEASURED_S:
        time.sleep(0.5)
        delays = [v for k, v in _metrics(ingest).items() if k.startswith("ingest_delay_ms") and "trades" in k]
        delay_ms = max(delay_ms, *delays)
    now, state = _metrics(ingest), json.loads(_get(f"{exchange}/sim/state"))
    seconds = time.monotonic() - began_s
    used = [(_cpu_s(process) - before) / seconds for process, before in zip(processes, cpu, strict=True)]
    return {
        "made": (state["trades"] - made) / seconds,
        "written": (now[TRADES] - metrics[TRADES]) / seconds,
        "delay_ms": delay_ms,
        "cpu": used[0],
        "exchange_cpu": used[1],
        "counter_cpu": used[2] if counter else 0.0,
        "connections": state["connections"],
        "symbols": len(json.loads(_get(f"{ingest}/streams"))["aggtrade"]),
    }
