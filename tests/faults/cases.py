"""The flows under fault: what goes into each, and what must come out, by partition and byte for byte."""

import json
import random
import time
import uuid
from dataclasses import replace
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import islice
from threading import Thread

from confluent_kafka import Producer
from raw_logs import SYMBOLS, Log, encode, realistic
from varied_runs import Cluster, ends, read

from flows.channels import MINITICKER, SECONDSTAT, create_topics, imported
from flows.partitioning import partition_of
from flows.recovery import make_recovery

TODAY_MS = time.time_ns() // 86_400_000_000_000 * 86_400_000  # what is older than a week goes out of the topics


class Case:
    """A flow, its input in a topic of its own (`feed` writes it, a part at a time), and the output it owes."""

    module, output = "", None

    def __init__(self, broker, redis_server, directory, seed=1):
        self.broker, self.redis_server = broker.address, redis_server.address
        self.directory = directory
        self.entries, self.expected = self.make(seed)
        self.topic = replace(
            imported(f"{self.module.rpartition('.')[2]}-{uuid.uuid4().hex[:6]}"), partitions=len(self.entries)
        )
        create_topics(self.broker, [self.topic, self.topic.dlq, self.output])
        self.before = ends(self.broker, self.output.name)
        self.recovery = directory / self.topic.name
        make_recovery(self.recovery)
        self.starts = 0
        self._fed = [0] * len(self.entries)
        self._producer = Producer(
            {"bootstrap.servers": self.broker, "enable.idempotence": True, "message.timeout.ms": 0}
        )

    def make(self, seed):
        """(entries of each partition, the bytes owed of each partition in order)."""
        raise NotImplementedError

    def feed(self, until, seconds=0.0):
        """Write the input up to the fraction `until` of each partition, spread over so many seconds; not awaited."""
        ways = [(p, number) for p, entries in enumerate(self.entries)
                for number in range(self._fed[p], int(len(entries) * until))]  # fmt: skip
        ways.sort(key=lambda way: way[1] / len(self.entries[way[0]]))
        self._fed = [max(fed, int(len(entries) * until)) for fed, entries in zip(self._fed, self.entries, strict=True)]
        began = time.monotonic()
        for n, (partition, number) in enumerate(ways):
            entry = self.entries[partition][number]
            headers = [] if entry.received_ms is None else [("received_ms", str(entry.received_ms).encode())]
            self._producer.produce(
                self.topic.name, entry.value, entry.key, partition, timestamp=entry.timestamp, headers=headers
            )
            ahead = began + seconds * n / len(ways) - time.monotonic()
            self._producer.poll(max(0.0, ahead))
        if not seconds:
            assert not self._producer.flush(30)

    def feeding(self, until, seconds):
        """The same in a thread."""
        thread = Thread(target=self.feed, args=(until, seconds))
        thread.start()
        return thread

    def run(self, workers=1, processes=1, snapshot_s=1):
        """Start the flow by Bytewax's own command."""
        self.starts += 1
        environment = {
            "BROKERS": self.broker, "REDIS_ADDR": self.redis_server, "KAFKA_TOPIC": self.topic.name,
        }  # fmt: skip
        log = self.directory / f"{self.topic.name}-{self.starts}.log"
        return Cluster(self.module, self.recovery, log, environment, workers, processes, snapshot_s)

    def published(self):
        """The values in the output topic so far, by partition."""
        found = read(self.broker, self.output.name, self.before)
        return [[message.value() for message in found[p]] for p in range(len(self.entries))]

    def await_everything(self, seconds=60):
        """Wait until all that is owed is there; raises AssertionError for what is not owed."""
        deadline = time.monotonic() + seconds
        owed = sum(len(set(values)) for values in self.expected)
        while True:
            published = self.published()
            for got, expected in zip(published, self.expected, strict=True):
                assert not set(got) - set(expected), "a record that is not owed"
            there = sum(len(set(values)) for values in published)
            if there == owed:
                return published
            assert time.monotonic() < deadline, f"{there} of {owed} records came"
            time.sleep(0.2)

    def await_some(self, seconds=60):
        """Wait until the flow publishes more than there is now."""
        before, deadline = sum(map(len, self.published())), time.monotonic() + seconds
        while sum(map(len, self.published())) == before:
            assert time.monotonic() < deadline, "the flow publishes nothing"

    def flush(self):
        """Wait until what was fed is in Kafka."""
        assert not self._producer.flush(60)

    def check_redis(self, redis, seconds=15):
        """Redis holds the newest of each symbol, at the latest with the next epoch: it may have died unanswered."""
        deadline = time.monotonic() + seconds
        for key, value in self.newest().items():
            while json.loads(redis.get(key) or "null") != json.loads(value):
                assert time.monotonic() < deadline, key
                time.sleep(0.05)

    def newest(self):
        """{Redis key: value}."""
        raise NotImplementedError

    def subscribe(self, pubsub):
        """Listen to what the flow publishes on Redis, if it does."""

    def await_channels(self, pubsub, seconds=60):
        """Wait until what is owed was heard; raises AssertionError for what is not owed."""


class SecondStats(Case):
    """flows.second_stats on what ingest writes, lost connections and revisions included."""

    module, output = "flows.second_stats", SECONDSTAT

    def make(self, seed):
        self.log = realistic(seed, seconds=60, rate=150, middle_ms=TODAY_MS)
        return self.log.partitions, [naive.published for naive in self.log.naive]

    def newest(self):
        best = {}
        for text in (text for texts in self.expected for text in texts):
            stat = json.loads(text)
            best[stat["symbol"]] = max(
                best.get(stat["symbol"], (0, 0, b"")), (stat["timestamp"], stat["revision"], text)
            )
        return {f"secondstat:last:{symbol.lower()}": text for symbol, (*_, text) in best.items()}

    def subscribe(self, pubsub):
        pubsub.subscribe(*(symbol.lower() for symbol in self.log.symbols))

    def await_channels(self, pubsub, seconds=60):
        owed = {text for texts in self.expected for text in texts}
        heard, deadline = set(), time.monotonic() + seconds
        while heard != owed:
            message = pubsub.get_message(timeout=0.2)
            if message and message["type"] == "message":
                heard.add(message["data"])
                assert message["data"] in owed
            assert time.monotonic() < deadline, f"{len(heard)} of {len(owed)} were heard"

    def feed_backlog(self, trades):
        """So many trades more, one a ms, that are owed to no one."""
        for n in range(trades):
            symbol, at = SYMBOLS[n % len(SYMBOLS)], TODAY_MS + 600_000 + n
            value = (
                b'{"e":"aggTrade","E":%d,"s":"%s","a":%d,"p":"64000.10","q":"0.0150","f":%d,"l":%d,"T":%d,"m":true,"M":true}'
                % (at, symbol.encode(), 10**12 + n // len(SYMBOLS), n, n, at)
            )
            self._producer.produce(
                self.topic.name, value, partition=partition_of(symbol, len(self.entries)), timestamp=at
            )
            if n % 1000 == 0:
                self._producer.poll(0)
            if n % 50_000 == 49_999:
                self.flush()
        self.flush()


class MiniTickers(Case):
    """flows.minitickers on a frame a symbol and second."""

    module, output = "flows.minitickers", MINITICKER
    partitions, seconds = 3, 300

    def make(self, seed):
        rng, log = random.Random(seed), Log("minitickers")
        log.partitions = [[] for _ in range(self.partitions)]
        owed = [[] for _ in range(self.partitions)]
        for second in range(self.seconds):
            for partition in range(self.partitions):
                for number in range(5):
                    at, symbol = TODAY_MS + second * 1000, keyed(partition, number)
                    prices = [f"{rng.randint(1, 10**9)}.{rng.randint(0, 10**8 - 1):08d}" for _ in range(4)]
                    ticker = {"e": "24hrMiniTicker", "E": at, "s": symbol} | dict(zip("cohl", prices, strict=True))
                    log.put(partition, encode(ticker), at, key=symbol)
                    owed[partition].append(self.row(symbol, at, *prices))
        return log.partitions, owed

    @staticmethod
    def row(symbol, at, close, open_, high, low):
        change = Decimal(close) - Decimal(open_)
        percent = (100 * change / Decimal(open_)).quantize(Decimal("1e-8"), ROUND_HALF_EVEN)
        return encode({
            "message_id": f"{symbol}-{at}", "event_type": "24hrMiniTicker", "event_time": at, "receive_time": at + 30,
            "symbol": symbol, "close_price": close, "open_price": open_, "high_price": high, "low_price": low,
            "change_price": f"{change:.8f}", "change_percent": f"{percent:.8f}",
        })  # fmt: skip

    def newest(self):
        rows = [json.loads(text) for texts in self.expected for text in texts]
        return {f"miniticker:last:{row['symbol'].lower()}": encode(row) for row in rows}


def keyed(partition, number):
    """The `number`th made-up symbol on a partition of `binance.miniticker`."""
    names = (f"SIM{n}USDT" for n in range(10_000))
    return next(islice((name for name in names if partition_of(name, 3) == partition), number, None))
