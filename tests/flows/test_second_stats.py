"""flows.second_stats on real Kafka and Valkey, run by Bytewax's own command."""

import json
import random
import signal
import time
import uuid

import pytest
from bytewax.testing import TestingSink, TestingSource, run_main
from domain.naive import NaiveStats
from flow_process import TopicReader, create_topic, make_recovery, poll_until, produce, running_flow
from redis import Redis

from flows.channels import SECONDSTAT, create_topics
from flows.connectors.kafka_source import Chunk
from flows.second_stats import build_flow

DAY_MS = 86_400_000
# Over the last midnight. Not long ago: topics that keep 7 days lose older records within a minute, under the reader.
BASE = time.time_ns() // 1_000_000 // DAY_MS * DAY_MS - 10_000
PARTITIONS = 3


def make_log(rng, symbols, trades=3000):
    """Values of one partition: shuffled a little, with duplicates, stragglers, poison, and a heartbeat at the end."""
    ids = dict.fromkeys(symbols, 1000)
    values = []
    for n in range(trades):
        now = BASE + n * 5
        symbol = rng.choice(symbols)
        lag = rng.choice([0, 1, 5, 40] * 10 + [1500, 3000])
        ids[symbol] += 1
        values.append(json.dumps({
            "e": "aggTrade", "E": now, "s": symbol, "a": ids[symbol], "p": f"{rng.randint(1, 10**7) / 100:.2f}",
            "q": f"{rng.randint(1, 10**6) / 10**5:.5f}", "f": ids[symbol] * 2, "l": ids[symbol] * 2 + rng.randint(0, 1),
            "T": now - lag, "m": rng.random() < 0.5, "M": True,
        }, separators=(",", ":")).encode())  # fmt: skip
        if n % 100 == 50:
            values.append(values[-rng.randint(1, 40)])
        if n % 500 == 77:
            values.append(b'{"e":"aggTrade","broken"')
        if n % 20 == 0:
            values.append(json.dumps({"e": "heartbeat", "E": now}).encode())
    return [*values, json.dumps({"e": "heartbeat", "E": BASE + trades * 5 + 3000}).encode()]


class Run:
    """A topic with a log, what the reference makes of it, and where the flow's output goes."""

    def __init__(self, kafka, valkey, tmp_path):
        self.kafka, self.valkey, self.log = kafka, valkey, tmp_path / "flow.log"
        self.topic = f"raw-{uuid.uuid4().hex[:8]}"
        create_topic(kafka, self.topic, PARTITIONS)
        tag = uuid.uuid4().hex[:6].upper()
        rng = random.Random(7)
        self.symbols = [[f"{tag}P{p}S{s}USDT" for s in range(3)] for p in range(PARTITIONS)]
        self.values = [make_log(rng, symbols) for symbols in self.symbols]
        self.naive = [NaiveStats().run(values) for values in self.values]
        self.recovery = make_recovery(tmp_path / "recovery")
        self.environment = {"BROKERS": kafka, "REDIS_ADDR": valkey, "KAFKA_TOPIC": self.topic}

    def produce(self, start=0.0, end=1.0):
        for partition, values in enumerate(self.values):
            part = values[int(len(values) * start) : int(len(values) * end)]
            produce(
                self.kafka,
                self.topic,
                [(b"k", value, partition, [("received_ms", str(BASE).encode())]) for value in part],
            )

    def flow(self):
        return running_flow("flows.second_stats", self.recovery, self.log, **self.environment)

    def final(self):
        return {key: text for naive in self.naive for key, text in naive.final.items()}


@pytest.fixture
def run(kafka, valkey, tmp_path):
    create_topics(kafka, [SECONDSTAT])
    return Run(kafka, valkey, tmp_path)


def of_run(messages, run):
    """The published stats of this run's symbols, in topic order within each partition."""
    mine = {symbol for symbols in run.symbols for symbol in symbols}
    return [json.loads(m.value()) for m in messages if m.key().decode() in mine]


def final_states(stats):
    best = {}
    for stat in sorted(stats, key=lambda s: s["revision"]):
        final = {name: value for name, value in stat.items() if name != "revision"}
        best[stat["timestamp"], stat["symbol"]] = json.dumps(final, separators=(",", ":"), ensure_ascii=False).encode()
    return best


def read_until_final(run):
    reader = TopicReader(run.kafka, "binance.secondstat")
    try:
        poll_until(lambda: final_states(of_run(reader.read(), run)) == run.final(), what="the reference's final state")
        return of_run(reader.messages, run)
    finally:
        reader.close()


def test_topic_redis_and_dlq_hold_what_the_reference_says_and_sigterm_drains(run):
    run.produce()
    with run.flow() as process:
        stats = read_until_final(run)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, run.log.read_text()
    published = [json.loads(text) for naive in run.naive for text in naive.published]
    for symbol in (s for symbols in run.symbols for s in symbols):  # one go: equal by revision, and in order
        assert [s for s in stats if s["symbol"] == symbol] == [s for s in published if s["symbol"] == symbol]
    assert any(stat["revision"] > 0 for stat in stats)

    redis = Redis.from_url(f"redis://{run.valkey}")
    for symbol in (s for symbols in run.symbols for s in symbols):
        newest = max((s for s in stats if s["symbol"] == symbol), key=lambda s: (s["timestamp"], s["revision"]))
        assert json.loads(redis.get(f"secondstat:last:{symbol.lower()}")) == newest
    redis.close()

    reader = TopicReader(run.kafka, f"{run.topic}.dlq")
    rejected = sum(len(naive.rejected) for naive in run.naive)
    dlq = poll_until(lambda: len(reader.read()) >= rejected and reader.messages, what="DLQ")
    reader.close()
    assert len(dlq) == rejected
    places = {(int(dict(m.headers())["source_partition"]), int(dict(m.headers())["source_offset"])) for m in dlq}
    assert places == {(p, index) for p, naive in enumerate(run.naive) for index in naive.rejected}
    assert all(b"bad JSON" in dict(m.headers())["reason"] for m in dlq)


@pytest.mark.faults
def test_killed_at_random_points_and_drained_once_the_final_state_is_the_same(run):
    rng = random.Random(3)
    for number in range(4):
        run.produce(number / 4, (number + 1) / 4)
        reader = TopicReader(run.kafka, "binance.secondstat")
        wanted = rng.randint(1, 5) + len(of_run(reader.read(), run))
        with run.flow() as process:
            poll_until(lambda: len(of_run(reader.read(), run)) >= wanted or number == 3, what="some output")  # noqa: B023
            process.send_signal(signal.SIGTERM if number == 2 else signal.SIGKILL)
            assert process.wait(10) == (0 if number == 2 else -signal.SIGKILL), run.log.read_text()
        reader.close()
    with run.flow():
        assert len({s["timestamp"] for s in read_until_final(run)}) > 10


def test_a_snapshot_of_another_log_is_refused_by_name(run):
    run.produce()
    with run.flow() as process:
        read_until_final(run)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    other = f"{run.topic}-other"
    create_topic(run.kafka, other, PARTITIONS)
    run.environment["KAFKA_TOPIC"] = other
    with run.flow() as process:
        assert process.wait(60) == 1
    assert f"the snapshot is of topic {run.topic}" in run.log.read_text()


def test_no_record_can_stop_the_flow(run):
    """The largest record that Kafka takes, and headers that are no times, go to the DLQ as any poison does."""
    nasty = [
        (b"x" * 999_850, [("received_ms", b"1723161600000")]),
        (b"not JSON", [("received_ms", b"9" * 5000)]),
        (b"not JSON", [("received_ms", b"9" * 30)]),
        (b"not JSON", [("received_ms", None), ("received_ms", b"\xff")]),
        (b"", [("received_ms", "٣".encode())]),
        (None, []),
    ]
    produce(run.kafka, run.topic, [(b"k", value, 0, headers) for value, headers in nasty])
    with run.flow() as process:
        dlq = TopicReader(run.kafka, f"{run.topic}.dlq")
        poll_until(lambda: len(dlq.read()) >= len(nasty) or process.poll() is not None, what="DLQ")
        dlq.close()
        assert process.poll() is None, run.log.read_text()[-2000:]
    assert [m.value() or b"" for m in dlq.messages] == [value or b"" for value, _ in nasty]


def test_redis_hears_of_a_chunk_that_closes_nothing():
    """Its sink then sees to what is unanswered."""
    quiet = Chunk("raw", 0, [0], [b"heartbeat"], [json.dumps({"e": "heartbeat", "E": BASE}).encode()], [BASE])
    kafka, redis, dlq = [], [], []
    run_main(build_flow(TestingSource([("0", quiet)]), *map(TestingSink, (kafka, redis, dlq))))
    assert [(part, [*records]) for part, records in redis] == [("0", [])]
    assert dlq == []
