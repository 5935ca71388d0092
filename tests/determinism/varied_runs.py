"""One run of the flow over a log under a plan, and the comparison of what it published with the naive reference."""

import json
import os
import random
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path
from signal import SIGKILL, SIGTERM, Signals

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from flow_process import poll_until
from raw_logs import PARTITIONS, digest
from redis import Redis

from flows.channels import SECONDSTAT, create_topics, imported
from flows.recovery import make_recovery
from infra.local.part import free_port
from infra.probes import probe

DRAIN_S = 10
RUN_S = 100
READY = "ready to drain"


@dataclass(frozen=True)
class Plan:
    """How the flow is run: the length of the reader's stalls in s, and how it is stopped and resumed on the way."""

    chunk: int = 2000
    workers: int = 1
    processes: int = 1
    stall_s: float = 0
    stops: tuple[Signals, ...] = ()
    seed: int = 0
    environment: dict[str, str] = field(default_factory=dict)  # a wall clock, say

    def __str__(self):
        stops = "".join("T" if stop == SIGTERM else "K" for stop in self.stops)
        more = "-".join(self.environment.get(name, "") for name in ("WALL_OFFSET_S", "WALL_RATE"))
        return (
            f"chunk{self.chunk}-w{self.workers}-p{self.processes}-stall{self.stall_s}-{stops or 'go'}-{self.seed}{more}"
        )


class Outcome:
    """What a run published, by partition of `binance.secondstat`, on Redis' channels and to the DLQ."""

    def __init__(self, published, channels, last, rejected, interrupted):
        self.published, self.channels, self.last, self.rejected = published, channels, last, rejected
        self.interrupted = interrupted  # how often it was stopped before it had published everything

    @property
    def final(self):
        """{(timestamp, symbol): JSON without revision} by the highest revision."""
        best = {}
        for text in (text for texts in self.published for text in texts):
            stat = json.loads(text)
            key, revision = (stat["timestamp"], stat["symbol"]), stat.pop("revision")
            if key not in best or revision > best[key][0]:
                best[key] = revision, json.dumps(stat, separators=(",", ":"), ensure_ascii=False).encode()
        return {key: text for key, (_, text) in best.items()}


def check(log, outcome, *, once):
    """Compare with the reference, `once`: by revision, each record exactly once and in order. Gives the figures.

    Otherwise a record may come again, but never another one, and none may be missing.
    """
    naive = log.naive
    for partition in range(PARTITIONS):
        published, expected = outcome.published[partition], naive[partition].published
        rejected = [naive[partition].rejected, outcome.rejected[partition]]
        if once:
            assert published == expected, f"partition {partition}: {first_difference(published, expected)}"
            assert rejected[0] == rejected[1], f"partition {partition}: DLQ"
        else:
            assert set(published) == set(expected), f"partition {partition}: {first_difference(published, expected)}"
            assert set(rejected[0]) == set(rejected[1]), f"partition {partition}: DLQ"
    assert digest(outcome.final) == digest(log.final)
    for symbol in log.symbols:
        told = [json.loads(text) for n in naive for text in n.published if json.loads(text)["symbol"] == symbol]
        heard = [json.loads(text) for text in outcome.channels[symbol]]
        assert heard == told if once else all(stat in heard for stat in told) and all(stat in told for stat in heard)
        assert json.loads(outcome.last[symbol]) == max(told, key=lambda s: (s["timestamp"], s["revision"]))
    revisions = sum(json.loads(text)["revision"] > 0 for n in naive for text in n.published)
    return len(log.final), revisions, digest(outcome.final)


def compare(bench, log, plan):
    """Run the plan and check its outcome; prints and gives what was compared: seconds, records of revision > 0."""
    for _ in range(3):  # a flow may be done before its first stop
        outcome = bench.run(log, plan)
        seconds, revisions, sha256 = check(log, outcome, once=SIGKILL not in plan.stops)
        if outcome.interrupted or not plan.stops:
            break
    assert seconds > 0
    assert revisions > 0
    assert outcome.interrupted or not plan.stops
    print(f"{log.name} {plan}: {seconds} seconds, {revisions} revisions, {outcome.interrupted} stops, sha256 {sha256}")
    return seconds, revisions


def first_difference(got, expected):
    if extra := set(got) - set(expected):
        return f"{len(extra)} records that the reference does not have: {sorted(extra)[:3]}"
    if missing := set(expected) - set(got):
        return f"{len(missing)} records are missing: {sorted(missing)[:3]}"
    return f"the same {len(set(got))} records, {len(got)} instead of {len(expected)} times, or in another order"


class Bench:
    """The stores, and the topics of the logs in them."""

    def __init__(self, brokers, redis_addr, directory):
        self.brokers, self.redis_addr, self.directory = brokers, redis_addr, Path(directory)
        self._topics = {}
        # Retention goes by the records' own times, which are long ago here.
        create_topics(brokers, [replace(SECONDSTAT, config={**SECONDSTAT.config, "retention.ms": "-1"})])

    def topic(self, log):
        """The topic with this log, written once."""
        if log.name not in self._topics:
            topic = imported(f"{log.name}-{uuid.uuid4().hex[:6]}")
            create_topics(self.brokers, [topic, topic.dlq])
            write(self.brokers, topic.name, log)
            self._topics[log.name] = topic.name
        return self._topics[log.name]

    def run(self, log, plan):
        """Run the flow over the log as the plan says, to the log's end."""
        topic, dlq = self.topic(log), f"{self.topic(log)}.dlq"
        before, dlq_before = ends(self.brokers, SECONDSTAT.name), ends(self.brokers, dlq)
        redis = Redis.from_url(f"redis://{self.redis_addr}")
        redis.delete(*(f"secondstat:last:{symbol.lower()}" for symbol in log.symbols))
        with redis, redis.pubsub() as channels:
            channels.subscribe(*(symbol.lower() for symbol in log.symbols))
            interrupted = self._run(topic, plan, log, before)
            heard = {symbol: [] for symbol in log.symbols}
            while message := channels.get_message(timeout=0.2):
                if message["type"] == "message":
                    heard[json.loads(message["data"])["symbol"]].append(message["data"])
            last = {symbol: redis.get(f"secondstat:last:{symbol.lower()}") for symbol in log.symbols}
        published = read(self.brokers, SECONDSTAT.name, before)
        rejected = [[] for _ in range(PARTITIONS)]
        for message in read(self.brokers, dlq, dlq_before)[0]:
            headers = dict(message.headers())
            partition, offset = int(headers["source_partition"]), int(headers["source_offset"])
            assert (message.value() or b"") == (log.partitions[partition][offset].value or b"")
            rejected[partition].append(offset)
        values = [[message.value() for message in published[p]] for p in range(PARTITIONS)]
        return Outcome(values, heard, last, rejected, interrupted)

    def _run(self, topic, plan, log, before):
        """Gives how many of the stops came amid the work."""
        rng, interrupted = random.Random(f"{plan} {log.name}"), 0
        stop = {p: len(entries) for p, entries in enumerate(log.partitions)}
        everything = sum(len(naive.published) for naive in log.naive)
        recovery = self.directory / f"recovery-{uuid.uuid4().hex[:8]}"
        make_recovery(recovery)
        environment = {
            "BROKERS": self.brokers, "REDIS_ADDR": self.redis_addr, "KAFKA_TOPIC": topic, "CHUNK": str(plan.chunk),
            "STALL_S": str(plan.stall_s), "STALL_SEED": str(plan.seed), **plan.environment,
        }  # fmt: skip
        for number, how in enumerate((*plan.stops, None)):
            # Only the last one ends by itself, so that no signal comes to one that is ending.
            environment["STOP"] = json.dumps(stop if how is None else {})
            said = self.directory / f"{recovery.name}-{number}.log"
            with Cluster("varied_flow", recovery, said, environment, plan.workers, plan.processes) as cluster:
                if how is None:
                    codes = cluster.wait(RUN_S)
                    assert codes == {0}, f"{codes}: {said.read_text()[-3000:]}"
                    return interrupted
                seen = published_since(self.brokers, before)
                wanted = min(everything, seen + rng.randint(1, max(1, (everything - seen) // 3)))
                deadline = time.monotonic() + RUN_S
                while cluster.running() and (
                    published_since(self.brokers, before) < wanted or said.read_text().count(READY) < plan.processes
                ):
                    assert time.monotonic() < deadline, said.read_text()[-3000:]
                if how == SIGTERM:
                    cluster.signal(how)
                    codes = cluster.wait(DRAIN_S)
                    assert codes == {0}, f"{codes}: {said.read_text()[-3000:]}"
            interrupted += published_since(self.brokers, before) < everything
        raise AssertionError("the last part of a run has no stop")


class Cluster:
    """The processes of one flow, run by Bytewax's own command."""

    def __init__(self, module, recovery, log, environment, workers=1, processes=1, snapshot_s=1):
        command = [sys.executable, "-m", "bytewax.run", module, "-r", str(recovery), "-s", str(snapshot_s), "-b", "0"]
        command += ["-w", str(workers)] if workers > 1 else []
        addresses = ";".join(f"127.0.0.1:{free_port()}" for _ in range(processes))
        env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), **environment}
        self.log, self.processes, self._health = log, [], [free_port() for _ in range(processes)]
        for number, health in enumerate(self._health):
            place = ["-i", str(number), "-a", addresses] if processes > 1 else []
            env["HEALTH_PORT"] = str(health)
            with log.open("ab") as output:
                self.processes.append(subprocess.Popen([*command, *place], env=env, stdout=output, stderr=output))

    def await_ready(self, seconds=60):
        """Wait until each process says that it reads."""
        for port in self._health:
            url = f"http://127.0.0.1:{port}/readyz"
            poll_until(lambda url=url: probe(url) is None or not self.running(), seconds, "the flow's readiness")
        assert self.running(), self.log.read_text()[-3000:]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()

    def running(self):
        """Whether no process has ended."""
        return all(process.poll() is None for process in self.processes)

    def signal(self, how):
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(how)

    def wait(self, seconds):
        """The set of their exit codes. Raises AssertionError when it takes longer."""
        deadline = time.monotonic() + seconds
        try:
            return {process.wait(max(0.0, deadline - time.monotonic())) for process in self.processes}
        except subprocess.TimeoutExpired as error:
            codes = [process.poll() for process in self.processes]
            raise AssertionError(f"the flow did not end within {seconds} s: {codes}") from error

    def kill(self):
        """`kill -9` whatever still runs."""
        self.signal(SIGKILL)
        for process in self.processes:
            process.wait(10)


def write(brokers, topic, log):
    """The log into its topic, delivered."""
    room = {"queue.buffering.max.messages": 2_000_000}  # a recording at once
    producer = Producer({"bootstrap.servers": brokers, "enable.idempotence": True, "linger.ms": 20, **room})
    failures = []
    for partition, entries in enumerate(log.partitions):
        for entry in entries:
            received = [] if entry.received_ms is None else [("received_ms", str(entry.received_ms).encode())]
            producer.produce(
                topic, entry.value, entry.key, partition, timestamp=entry.timestamp, headers=received,
                on_delivery=lambda error, _: failures.append(error) if error else None,
            )  # fmt: skip
            producer.poll(0)
    assert not producer.flush(60)
    assert not failures


def _reader(brokers):
    return Consumer({"bootstrap.servers": brokers, "group.id": "determinism", "enable.auto.commit": False})


def ends(brokers, topic):
    """{partition: offset after its last record}."""
    consumer = _reader(brokers)
    try:
        partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        return {p: poll_until(lambda p=p: _end(consumer, topic, p), what=f"{topic} {p}")[0] for p in partitions}
    finally:
        consumer.close()


def _end(consumer, topic, partition):
    """(The offset after the last record,), or None while a new partition has no leader yet."""
    try:
        return (consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)[1],)
    except KafkaException as error:
        if error.args[0].code() not in (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError._UNKNOWN_PARTITION):
            raise
        return None


def published_since(brokers, before):
    return sum(ends(brokers, SECONDSTAT.name).values()) - sum(before.values())


def read(brokers, topic, starts):
    """{partition: messages} from these offsets to the present ends."""
    left = {p: end for p, end in ends(brokers, topic).items() if end > starts[p]}
    found = {p: [] for p in starts}
    consumer = _reader(brokers)
    try:
        consumer.assign([TopicPartition(topic, p, starts[p]) for p in left])
        deadline = time.monotonic() + 60
        while left:
            assert time.monotonic() < deadline, f"{topic} could not be read to its end"
            for message in consumer.consume(10_000, timeout=0.1):
                assert message.error() is None, message.error()
                found[message.partition()].append(message)
                if message.offset() + 1 >= left.get(message.partition(), 0):
                    left.pop(message.partition(), None)
        return found
    finally:
        consumer.close()
