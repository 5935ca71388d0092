"""A broker, a simulated exchange and ingest, each a process of its own, for one test module."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from bisect import bisect_left
from collections import defaultdict
from pathlib import Path

import httpx
from flow_process import TopicReader, poll_until

from flows.channels import RAW_AGGTRADE, all_topics, create_topics
from flows.gap_ledger import read_ledger
from flows.partitioning import partition_of
from infra.local.kafka import kafka as kafka_part
from infra.local.part import LOOPBACK, free_port, spawn, stop, wait_ready

REST_FIELDS = ("p", "q", "f", "l", "T", "m")


@contextlib.contextmanager
def process(module, log, *arguments, **environment):
    """Killed at the end if a test did not stop it."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments], env={**os.environ, **environment}, stdout=output, stderr=output
        )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.kill()
        child.wait(10)


def get(url, **params):
    try:
        return httpx.get(url, params=params, timeout=10)
    except httpx.TransportError:
        return None


class Ingest:
    """One ingest process."""

    def __init__(self, world, log, symbols, environment):
        self.log, self.port = log, free_port()
        self.environment = {
            "BROKERS": world.brokers, "EXCHANGE_WS_URL": f"ws://{world.address}",
            "EXCHANGE_REST_URL": f"http://{world.address}", "HEALTH_PORT": str(self.port), "SYMBOLS": symbols,
            **environment,
        }  # fmt: skip
        self.process = None

    def get(self, path):
        return get(f"http://127.0.0.1:{self.port}{path}")

    def streams(self):
        answer = self.get("/streams")
        return answer.json() if answer else {"aggtrade": []}

    def ready(self):
        answer = self.get("/readyz")
        return answer is not None and answer.status_code == 200

    def reason(self):
        answer = self.get("/readyz")
        return answer.json().get("detail", "") if answer is not None else ""

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(15) == 0, self.log.read_text()

    def kill(self):
        self.process.kill()
        self.process.wait(10)


class World:
    def __init__(self, brokers, address, directory):
        self.brokers, self.address, self.directory = brokers, address, directory
        self.reader = TopicReader(brokers, RAW_AGGTRADE)
        self._logs = 0
        self._by_symbol = defaultdict(list)
        self._sorted = 0

    @contextlib.contextmanager
    def ingest(self, symbols="btcusdt,ethusdt,xrpusdt", ready=True, **environment):
        """An ingest process, stopped as planned at the end if it still runs."""
        self._logs += 1
        started = Ingest(self, self.directory / f"ingest-{self._logs}.log", symbols, environment)
        with process("flows.ingest", started.log, **started.environment) as started.process:
            if ready:
                poll_until(started.ready, what=f"ingest ({started.log})")
            yield started
            if started.process.poll() is None:
                started.stop()

    def fault(self, name, **options):
        assert httpx.post(f"http://{self.address}/sim/faults", json={"fault": name, **options}).status_code == 200

    def hits(self, name):
        return self.sim()["faults"]["hits"][name]

    def sim(self):
        return get(f"http://{self.address}/sim/state").json()

    def rest(self, path, **params):
        answer = get(f"http://{self.address}/api/v3/{path}", **params)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def messages(self):
        """All of the raw log so far; what is new is also sorted by symbol, since tests ask for that again and again."""
        messages = self.reader.read()
        for at in range(self._sorted, len(messages)):
            message = messages[at]
            if key := message.key():
                record = json.loads(message.value()), dict(message.headers()), message
                self._by_symbol[key.decode()].append((at, record))
        self._sorted = len(messages)
        return messages

    def records(self, symbol, since=0):
        """(record, headers, message) of a symbol, in log order, from a place in `messages()` on."""
        self.messages()
        found = self._by_symbol[symbol]
        return [record for _, record in found[bisect_left(found, since, key=lambda one: one[0]) :]]

    def trades(self, symbol, since=0):
        return [record for record, _, _ in self.records(symbol, since) if record["e"] == "aggTrade"]

    def ids(self, symbol, since=0):
        return {trade["a"] for trade in self.trades(symbol, since)}

    def ledger(self, symbol=None):
        return [row for row in read_ledger(self.brokers) if symbol in (None, row.symbol)]

    def lost(self, symbol):
        return {
            a for row in self.ledger(symbol) if row.state == "lost" for a in range(row.first_missing_a, row.last_missing_a + 1)
        }  # fmt: skip

    def grows(self, symbol, by=50):
        """Wait for so many more trades of a symbol."""
        before = len(self.trades(symbol))
        poll_until(lambda: len(self.trades(symbol)) >= before + by, what=f"trades of {symbol}")

    def holes(self, symbol, since=0):
        """Ids between the first and the last in the log that are neither there nor lost by the ledger."""
        found = self.ids(symbol, since)
        return set(range(min(found), max(found) + 1)) - found - self.lost(symbol) if found else set()

    def assert_whole(self, *symbols, since=0):
        """Every id is there, or becomes so, with what REST says of it."""
        for symbol in symbols:
            poll_until(lambda s=symbol: not self.holes(s, since), what=f"{symbol} without holes")

    def late(self, since=0):
        """Trades that came after their second was closed."""
        watermark, late = defaultdict(int), []
        for message in self.messages():
            record, partition = json.loads(message.value()), message.partition()
            if record["e"] == "aggTrade":
                second = record["T"] - record["T"] % 1000
                if second + 1200 <= watermark[partition]:
                    late.append(message)
            watermark[partition] = max(watermark[partition], record.get("E", 0))
        seen = set(map(id, self.messages()[since:]))
        return [message for message in late if id(message) in seen]


@contextlib.contextmanager
def world(*arguments, prepare=None):
    """A broker and an exchange of their own, since symbols and topics are always the same.

    `prepare(directory)` may fill the exchange's data directory first.
    """
    port, kafka_port = free_port(), free_port()
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tracker-ingest-")))
        data = directory / "exchange"
        if prepare is not None:
            prepare(data)
        broker = kafka_part(directory / "kafka", kafka_port)
        broker.prepare()
        broker_process = spawn(broker, directory / "kafka.log")
        stack.callback(stop, broker, broker_process)
        wait_ready(broker, broker_process)
        brokers = f"{LOOPBACK}:{kafka_port}"
        create_topics(brokers, all_topics(10**9))
        exchange = ("--port", str(port), "--data-dir", str(data), *arguments)
        stack.enter_context(process("infra.local.exchange", directory / "exchange.log", *exchange))
        poll_until(lambda: get(f"http://127.0.0.1:{port}/readyz"), what="the exchange")
        made = World(brokers, f"127.0.0.1:{port}", directory)
        stack.callback(made.reader.close)
        yield made


def partition(symbol):
    return partition_of(symbol, 8)
