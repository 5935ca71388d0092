"""Raw trades a second from the socket service to 1 and to 20 clients, all of it on one core.

The peer is the same log served by grpcio with a write a message (`bench/socket_peer.py`).
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from confluent_kafka import Producer

from bench.harness import Figure
from bench.parts import broker, cores, pin
from flows.channels import RAW_AGGTRADE, RAW_MINITICKER, create_topics, raw_aggtrade
from flows.partitioning import partition_of
from infra.local.part import LOOPBACK, Part, free_port, spawn, stop, wait_ready

SYMBOLS = [f"COIN{n}USDT" for n in range(50)]
REPLAYED = 500_000
LIVE = 100_000  # to each of 20 clients
PEER_LIVE = 5_000


def run() -> list[Figure]:
    """Replay to one client, then live to one and to twenty; the peer does the same with fewer messages."""
    figures: list[Figure] = []
    with broker() as brokers:
        create_topics(brokers, [raw_aggtrade(1 << 40), RAW_MINITICKER])
        _produce(brokers, REPLAYED)
        ours = _measure(brokers, [sys.executable, "-m", "api.socket.server"], LIVE)
        port = free_port()
        peer = _measure(brokers, [sys.executable, "-m", "bench.socket_peer", brokers, str(port)], PEER_LIVE, port)
    for name, value in ours.items():
        figures.append(Figure(name, value, "messages/s", "grpcio, a write a message", value / peer[name]))
        figures.append(Figure(f"{name}, the peer", peer[name], "messages/s"))
    return figures


def _measure(brokers: str, command: list[str], live: int, port: int = 0) -> dict[str, float]:
    with _server(brokers, command, port) as (pid, address):
        return {
            "replay to 1 client": _clients(brokers, address, 1, min(REPLAYED, 20 * live), "replay"),
            "live to 1 client": _clients(brokers, address, 1, 2 * live, "live"),
            "live to 20 clients": _clients(brokers, address, 20, live, "live"),
            "live to 20 clients, a CPU second": _of_cpu(pid, brokers, address, live),
        }


def _of_cpu(pid: int, brokers: str, port: int, live: int) -> float:
    process = psutil.Process(pid)
    before = sum(process.cpu_times()[:2])
    _clients(brokers, port, 20, live, "live")
    return 20 * live / (sum(process.cpu_times()[:2]) - before)


@contextlib.contextmanager
def _server(brokers: str, command: list[str], port: int) -> Iterator[tuple[int, int]]:
    port = port or free_port()
    env = {"BROKERS": brokers, "PORT": str(port), "AGGREGATOR_ADDR": f"{LOOPBACK}:1"}
    part = Part("server", command, f"tcp://{LOOPBACK}:{port}", env=env)
    with tempfile.TemporaryDirectory() as directory:
        process = spawn(part, Path(directory) / "log", os.environ)
        try:
            wait_ready(part, process)
            pin(process.pid, cores()[0])
            yield process.pid, port
        finally:
            stop(part, process)


def _clients(brokers: str, port: int, clients: int, messages: int, mode: str) -> float:
    """Messages a second, all clients together."""
    command = [sys.executable, "-m", "bench.socket_client", str(port), str(clients), str(messages), mode]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pin(process.pid, cores()[1])
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the clients did not begin")
        if mode == "live":
            _produce(brokers, messages)
        result = json.loads(process.stdout.readline())
    return float(result["messages"] / result["seconds"])


def _produce(brokers: str, count: int) -> None:
    producer = Producer({"bootstrap.servers": brokers, "linger.ms": 20, "queue.buffering.max.messages": 1_000_000})
    now = time.time_ns() // 1_000_000
    headers = [("received_ms", str(now).encode()), ("source", b"live")]
    for n in range(count):
        symbol = SYMBOLS[n % len(SYMBOLS)]
        value = (
            f'{{"e":"aggTrade","E":{now},"s":"{symbol}","a":{n},"p":"61837.63000000","q":"0.01500000",'
            f'"f":{n},"l":{n},"T":{now},"m":true,"M":true}}'
        )
        partition = partition_of(symbol, 8)
        producer.produce(RAW_AGGTRADE, value.encode(), symbol, partition=partition, timestamp=now, headers=headers)
        if n % 1000 == 0:
            producer.poll(0)
    producer.flush(60)
