"""A day of trades through `tracker backtest`, beside backtesting.py on the same trades: time, memory and equity.

The peer is installed into an environment of its own for the run (pandas and Bokeh come with it). It has no log to read
and no decimals to keep: it gets the trades as a CSV file of times and prices, and makes its bars from that.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
from confluent_kafka import Producer

from bench.harness import Figure
from bench.parts import broker, cores, pin
from bench.trades import EPOCH_MS, Trades
from flows.channels import create_topics, imported
from flows.partitioning import partition_of

PEER = "backtesting==0.6.6"
ROOT = Path(__file__).parents[1]
DAY_S = 24 * 3600
FAST, SLOW, CASH, FEE_BPS = 60, 300, 1_000_000, 10
HAND = (100, 100, 101, 104, 103, 99, 95, 96, 100, 106)  # closes of ten seconds; each opens at the close before
# The average of 2 is above that of 3 up to 103, below up to 96, above at 100: bought at the next open, 100, for 0.1.
HAND_EQUITY = Decimal(CASH) - 100 - Decimal("0.1") + 106


def run(n: int = 5_000_000, seconds: int = DAY_S, symbols: int = 1) -> list[Figure]:
    """`n` trades over `seconds` through the built-in average cross; with one symbol, also one beside the peer."""
    with broker() as brokers, tempfile.TemporaryDirectory(prefix="tracker-bench-") as name:
        directory = Path(name)
        _produce(brokers, "day", n, seconds, symbols, directory / "day.csv")
        strategy = "moving_average_cross"
        hour = _ours(brokers, "day", strategy, directory, words=("--to", str(EPOCH_MS + 3_600_000)))
        ours = _ours(brokers, "day", strategy, directory)
        figures = [
            Figure(f"{n:,} trades, one core, start-up included", ours["took_s"], "s"),
            Figure("the same as a rate", n / ours["took_s"], "trades/s"),
            Figure("CPU time of it", ours["cpu_s"], "s"),
            Figure("largest memory, the whole range", ours["memory_mb"], "MB"),
            Figure("largest memory, an hour of it", hour["memory_mb"], "MB"),
        ]
        if symbols == 1:
            figures += _beside_the_peer(brokers, directory)
    return figures


def _beside_the_peer(brokers: str, directory: Path) -> list[Figure]:
    """A cross of whole units, which both can do."""
    ours = _ours(brokers, "day", str(ROOT / "bench" / "one_unit_cross.py"), directory)
    python = _peer_python(directory)
    peer = _peer(python, directory / "day.csv", FAST, SLOW)
    theirs = peer["read_s"] + peer["bars_s"] + peer["run_s"]
    off = abs(Decimal(peer["equity"]) - Decimal(ours["result"]["final_equity"]))
    _produce_hand(brokers, directory / "hand.csv")
    hand = _ours(brokers, "hand", str(ROOT / "bench" / "one_unit_cross.py"), directory, fast=2, slow=3)
    hand_peer = _peer(python, directory / "hand.csv", 2, 3)
    answers = Decimal(hand["result"]["final_equity"]), Decimal(hand_peer["equity"])
    if answers[0] != HAND_EQUITY or abs(answers[1] - HAND_EQUITY) > Decimal("1e-6"):
        raise RuntimeError(
            f"the hand-checked case gives {HAND_EQUITY}, not {answers[0]}, or {answers[1]} from the peer"
        )
    return [
        Figure("the peer's strategy, ours", ours["took_s"], "s"),
        Figure("backtesting.py, from CSV", theirs, "s", "ours in s", theirs / ours["took_s"]),
        Figure("of it the run over ready bars", peer["run_s"], "s"),
        Figure("fills of ours", len(ours["result"]["fills"]), "fills"),
        Figure("closed trades of the peer", peer["trades"], "trades"),
        Figure("final equity, ours", float(ours["result"]["final_equity"]), "USDT"),
        Figure("final equity, how far the peer's is off", float(off), "USDT"),
        Figure("hand-checked case, how far ours is off", float(answers[0] - HAND_EQUITY), "USDT"),
        Figure("hand-checked case, how far the peer's is off", float(answers[1] - HAND_EQUITY), "USDT"),
    ]


def _ours(
    brokers: str,
    topic: str,
    strategy: str,
    directory: Path,
    fast: int = FAST,
    slow: int = SLOW,
    words: tuple[str, ...] = (),
) -> dict[str, Any]:
    """`tracker backtest` on one core, watched."""
    out = directory / f"{topic}.json"
    command = [
        sys.executable, "-m", "tracker", "backtest", strategy, "--topic", topic, "--cash", str(CASH), "--fee-bps",
        str(FEE_BPS), "--param", f"fast={fast}", "--param", f"slow={slow}", "--json", str(out), *words,
    ]  # fmt: skip
    began = time.perf_counter()
    environment = {**os.environ, "BROKERS": brokers}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        pin(process.pid, cores()[0])
        watched, memory, cpu_s = psutil.Process(process.pid), 0, 0.0
        while process.poll() is None:
            try:
                memory = max(memory, watched.memory_info().rss)
                cpu_s = sum(watched.cpu_times()[:2])
            except psutil.NoSuchProcess:
                break
            time.sleep(0.05)
    if process.returncode:
        raise RuntimeError(f"tracker backtest over {topic} ended with {process.returncode}")
    return {
        "took_s": time.perf_counter() - began,
        "cpu_s": cpu_s,
        "memory_mb": memory / 1e6,
        "result": json.loads(out.read_text()),
    }


def _peer_python(directory: Path) -> Path:
    uv = Path(sys.executable).parent / "uv"
    home = directory / "peer"
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, home], check=True)
    python = home / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--python", python, PEER], check=True)
    return python


def _peer(python: Path, trades: Path, fast: int, slow: int) -> dict[str, Any]:
    script = ROOT / "bench" / "library_peers" / "backtesting_py.py"
    command = list(map(str, (python, script, trades, fast, slow, CASH, FEE_BPS / 10_000)))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        pin(process.pid, cores()[0])
        out, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"the peer ended with {process.returncode}")
    answer: dict[str, Any] = json.loads(out.splitlines()[-1])
    return answer


def _produce(brokers: str, topic: str, n: int, seconds: int, symbols: int, csv: Path) -> None:
    """Trades spread evenly, and a heartbeat a partition and second, as imports write them."""
    step = seconds * 1000 / n
    trades = Trades(symbols)

    def records() -> Iterator[tuple[str, bytes, int]]:
        for start in range(0, n, 10_000):
            yield from trades.take([EPOCH_MS + int(i * step) for i in range(start, min(start + 10_000, n))])

    _write(brokers, topic, records(), csv)


def _produce_hand(brokers: str, csv: Path) -> None:
    def records() -> Iterator[tuple[str, bytes, int]]:
        before, number = HAND[0], 0
        for second, close in enumerate(HAND):
            for price, ms in ((before, 0), (close, 500)):
                number += 1
                time_ms = EPOCH_MS + second * 1000 + ms
                yield (
                    "HANDUSDT",
                    (
                        f'{{"e":"aggTrade","E":{time_ms},"s":"HANDUSDT","a":{number},"p":"{price}.00000000","q":"1.00000000",'
                        f'"f":{number},"l":{number},"T":{time_ms},"m":true,"M":true}}'
                    ).encode(),
                    time_ms,
                )
            before = close

    _write(brokers, "hand", records(), csv)


def _write(brokers: str, topic: str, records: Iterator[tuple[str, bytes, int]], csv: Path) -> None:
    partitions = imported(topic).partitions
    create_topics(brokers, [imported(topic)])
    producer = Producer({
        "bootstrap.servers": brokers, "linger.ms": 50, "compression.type": "lz4",
        "queue.buffering.max.messages": 200_000,
    })  # fmt: skip
    second, last, places = 0, 0, dict[str, int]()

    def produce(value: bytes, key: str | None, partition: int, at_ms: int) -> None:
        while True:
            try:
                producer.produce(topic, value, key, partition, timestamp=at_ms)
                return
            except BufferError:
                producer.poll(0.1)

    def heartbeat(at_ms: int) -> None:
        for partition in range(partitions):
            produce(b'{"e":"heartbeat","E":%d}' % at_ms, None, partition, at_ms)

    with csv.open("w") as file:
        for symbol, value, event_ms in records:
            if event_ms // 1000 > second:
                if second:
                    heartbeat(second * 1000 + 999)
                second = event_ms // 1000
            partition = places.get(symbol)
            if partition is None:
                partition = places[symbol] = partition_of(symbol, partitions)
            produce(value, symbol, partition, event_ms)
            price = value[value.index(b'"p":"') + 5 :].partition(b'"')[0].decode()
            trade_ms = value[value.index(b'"T":') + 4 :].partition(b",")[0].decode()
            file.write(f"{trade_ms},{price}\n")
            last = event_ms
    heartbeat(last + 5000)
    if producer.flush(120):
        raise RuntimeError("Kafka did not take all trades")
