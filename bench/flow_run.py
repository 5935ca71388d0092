"""One timed run of the production dataflow of SecondStats over a topic, as a process of its own.

Prints, last, the line that the peers of ../shared/peers/second_stats print: peer, messages, seconds, rate, stats,
volume_sum and check (the sum of the CRC-32 of each stat's text), so that runs agree only if every field does.
"""

import argparse
import json
import pickle
import sqlite3
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar

from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig
from bytewax.testing import cluster_main
from confluent_kafka import Consumer, TopicPartition

from bench.totals import Totals
from flows.channels import SECOND_STATS_GROUP, SECONDSTAT, create_topics
from flows.connectors.kafka_sink import Fields, KafkaSink
from flows.connectors.kafka_source import Chunk, KafkaPartition, KafkaSource, Position
from flows.connectors.redis_sink import RedisSink, RedisSinkPart
from flows.domain.partition import PartitionStats
from flows.recovery import make_recovery
from flows.second_stats import LAST_STATS, build_flow, tune_gc
from infra.local.part import LOOPBACK, free_port
from infra.settings import split_address

LATENESS_MS, HORIZON_MS = 200, 30 * 60 * 1000
EPOCH = timedelta(seconds=10)  # as `tracker up` runs it


class CountSink(DynamicSink[Any]):
    """Counts the flow's SecondStats and keeps none of them."""

    def __init__(self, totals: Totals) -> None:
        self.totals = totals

    def build(self, _step_id: str, _worker_index: int, _worker_count: int) -> "StatelessSinkPartition[Any]":
        """One for each worker, on the same totals: the workers are threads of one process."""
        return _Count(self.totals)


class _Count(StatelessSinkPartition[Any]):
    def __init__(self, totals: Totals) -> None:
        self._totals = totals

    def write_batch(self, items: list[Any]) -> None:
        for _part, records in items:
            self._totals.add(records.values)


class KeepingRedisSink(RedisSink):
    """The production sink; also keeps what it wrote, to be counted when the time has been taken."""

    kept: ClassVar[list[bytes]] = []

    def build_part(self, _step_id: str, _for_part: str, _resume_state: None) -> RedisSinkPart:
        """As the RedisSink does."""
        return _KeepingPart(*self._address, self._places)


class _KeepingPart(RedisSinkPart):
    def write_batch(self, items: list[Iterable[Fields]]) -> None:
        super().write_batch(items)
        KeepingRedisSink.kept += [json for records in items for _, _, json, *_ in records if json]


class Nowhere(DynamicSink[Any]):
    """Takes everything and does nothing with it, as the peers' stats go nowhere."""

    def build(self, _step_id: str, _worker_index: int, _worker_count: int) -> "StatelessSinkPartition[Any]":
        """One for each worker."""
        return _Nowhere()


class _Nowhere(StatelessSinkPartition[Any]):
    def write_batch(self, items: list[Any]) -> None:
        pass


class TimedSource(KafkaSource):
    """The production source; notes when the first records came, and how many."""

    began: float | None = None
    records = 0

    def build_part(self, _step_id: str, for_part: str, resume_state: Position | None) -> KafkaPartition:
        """As the KafkaSource does."""
        return _TimedPartition(self, int(for_part), resume_state)


class _TimedPartition(KafkaPartition):
    def __init__(self, source: TimedSource, partition: int, resume: Position | None) -> None:
        super().__init__(source, partition, resume)
        self._timed = source

    def next_batch(self) -> list[tuple[str, Chunk]]:
        chunks = super().next_batch()
        if chunks:
            if self._timed.began is None:
                self._timed.began = time.perf_counter()
            self._timed.records += sum(len(chunk.values) for _part, chunk in chunks)
        return chunks


def ends(bootstrap: str, topic: str) -> dict[int, int]:
    """The end offset of each partition."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "bench"})
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        places = [TopicPartition(topic, p) for p in sorted(partitions)]
        return {p.partition: consumer.get_watermark_offsets(p, timeout=30)[1] for p in places}
    finally:
        consumer.close()


def still_open(recovery: Path) -> Iterator[bytes]:
    """The seconds that the end of the input left open, from the flow's last snapshots."""
    for database in sorted(recovery.glob("*.sqlite3")):
        with closing(sqlite3.connect(database)) as connection:
            rows = connection.execute(
                "SELECT state_key, snap_epoch, ser_change FROM snaps WHERE step_id LIKE ?",
                ("second_stats.second_stats%",),
            ).fetchall()  # put in order by SQLite, it takes several times as long
        last = {key: pickled for key, _, pickled in sorted(rows)}
        for pickled in last.values():
            stats = PartitionStats(LATENESS_MS, HORIZON_MS)
            stats.restore(pickle.loads(pickled))  # noqa: S301 - our own
            yield from (stat.to_json() for stat in stats.open_stats())


@dataclass(frozen=True)
class _Job:
    """What one process of the cluster is to run, and where."""

    bootstrap: str
    topic: str
    stop: dict[int, int]
    sinks: str
    redis: str
    recovery: str
    addresses: list[str]


def _run(job: _Job, process: int) -> tuple[float | None, int, Totals, list[bytes]]:
    """Run this process's part: (when its first records came, how many, what was counted, what is to be counted)."""
    source = TimedSource(job.bootstrap, job.topic, SECOND_STATS_GROUP, stop=job.stop)
    totals = Totals()
    totals.add([])  # loads the native code before the time begins
    ends_of_flow: tuple[Any, Any, Any] = CountSink(totals), Nowhere(), Nowhere()
    if job.sinks == "real":
        create_topics(job.bootstrap, [SECONDSTAT])
        ends_of_flow = (
            KafkaSink(job.bootstrap, len(job.stop)),
            KeepingRedisSink(*split_address(job.redis, 6379), len(job.stop), LAST_STATS),
            KafkaSink(job.bootstrap, len(job.stop)),
        )
    flow = build_flow(source, *ends_of_flow, allowed_lateness_ms=LATENESS_MS, revision_horizon_ms=HORIZON_MS)
    tune_gc()  # as the flow's own start does
    cluster_main(flow, job.addresses, process, epoch_interval=EPOCH, recovery_config=RecoveryConfig(job.recovery))
    return source.began, source.records, totals, KeepingRedisSink.kept


def measure(
    bootstrap: str, topic: str, n: int, sinks: str = "count", redis: str = "", processes: int = 1
) -> dict[str, Any]:
    """Run the flow over the n records of a topic; the peers' result line as a dict.

    `sinks`: "count" only counts, as the peers do; "real" writes to Kafka and to the Redis server at `redis` as well.
    Raises ValueError if the topic does not hold n.
    """
    stop = ends(bootstrap, topic)
    if sum(stop.values()) != n:
        raise ValueError(f"topic {topic} holds {sum(stop.values())} messages, not {n}")
    totals = Totals()
    totals.add([])
    with tempfile.TemporaryDirectory() as directory:
        recovery = Path(directory) / "recovery"
        make_recovery(recovery)
        addresses = [f"{LOOPBACK}:{free_port()}" for _ in range(processes)] if processes > 1 else []
        job = _Job(bootstrap, topic, stop, sinks, redis, str(recovery), addresses)
        if processes == 1:
            parts = [_run(job, 0)]
        else:
            with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
                parts = [*pool.map(_run, [job] * processes, range(processes))]
        totals.add([*still_open(recovery)])
    # One clock for all processes of a machine.
    seconds = time.perf_counter() - min(began for began, *_ in parts if began is not None)
    for _, _, counted, kept in parts:
        totals.merge(counted)
        totals.add(kept)
    name = "tracker" if sinks == "count" else f"tracker-{sinks}-sinks"
    if processes > 1:
        name += f"-{processes}-processes"
    return totals.line(name, sum(records for _, records, *_ in parts), seconds)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m bench.flow_run", description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--n", type=int, required=True)
    parser.add_argument("--sinks", choices=("count", "real"), default="count")
    parser.add_argument("--redis", default="")
    parser.add_argument("--processes", type=int, default=1)
    print(json.dumps(measure(**vars(parser.parse_args(arguments)))), flush=True)


if __name__ == "__main__":
    main()
