"""Raw trades in Kafka to one-second statistics on Redis and Kafka.

Run it: `python -m bytewax.run flows.second_stats -r RECOVERY_DIR -s 10 -b 0`
(make the directory once: `python -m bytewax.recovery RECOVERY_DIR 1`; one directory a flow).
"""

import gc
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import Source
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import Sink
from prometheus_client import Counter, Gauge

from flows import drain
from flows.channels import (
    SECOND_STATS_GROUP,
    SECONDSTAT,
    create_topics,
    raw_aggtrade,
    secondstat_channel,
    secondstat_last_key,
)
from flows.connectors.kafka_sink import KafkaSink, Record, RecordColumns
from flows.connectors.kafka_source import Chunk, KafkaSource
from flows.connectors.redis_sink import Place, Places, RedisSink
from flows.dlq import poison_record
from flows.domain.partition import PartitionStats
from flows.domain.second_stat import SecondStat
from flows.recovery import forget_uncommitted_of_this_run
from flows.runs import Closed, TradeRuns
from infra.health import serve_health
from infra.logs import setup_logging
from infra.settings import Settings, split_address
from infra.tls import use_kafka_tls

RECORDS = Counter("second_stats_records", "Records of the raw log, by what became of them", ["outcome"])
PUBLISHED = Counter("second_stats_published", "SecondStats published, revisions included")
WATERMARK = Gauge("second_stats_watermark_ms", "Event time up to which the log is known", ["partition"])
HOLES = Gauge("second_stats_open_holes", "Runs of missing aggregate ids", ["partition"])

LAST_STATS = Places(
    lambda symbol: Place(secondstat_last_key(symbol), secondstat_channel(symbol)), ("timestamp", "revision")
)


class Output(NamedTuple):
    """What some chunks gave: the records of `binance.secondstat`, and those of the DLQ."""

    published: RecordColumns
    rejected: list[Record]


class SecondStatsStep(StatefulBatchLogic[Chunk, Output, bytes]):
    """The core at work on one partition: chunks in, SecondStats and DLQ records out."""

    def __init__(self, allowed_lateness_ms: int, revision_horizon_ms: int, snapshot: bytes | None) -> None:
        self._stats = PartitionStats(allowed_lateness_ms, revision_horizon_ms)
        self._runs = TradeRuns(self._stats)
        self._runs.warm_up()
        self._is_new = snapshot is None
        if snapshot is not None:
            self._stats.restore(snapshot)

    def on_batch(self, values: list[Chunk]) -> tuple[Iterable[Output], bool]:
        """Process the chunks in order."""
        out = Output(RecordColumns(SECONDSTAT.name), [])
        if self._is_new and values[0].offsets[0] > 0:  # what retention has removed
            self._stats.begin_amid(values[0].first_ms)
        self._is_new = False
        for chunk in values:
            for output in self._runs.take(chunk.values, chunk.received_ms):
                if isinstance(output, Closed):
                    out.published.extend(output.keys, output.json, output.seconds)
                elif isinstance(output, SecondStat):
                    out.published.extend([output.symbol.encode()], [output.to_json()], [output.timestamp])
                else:
                    out.rejected.append(poison_record(chunk, output.index, output.reason))
        self._count(values[-1].partition, out)
        return [out], StatefulBatchLogic.RETAIN

    def on_eof(self) -> tuple[Iterable[Output], bool]:
        """The end of the input closes nothing: there are no partial seconds."""
        return (), StatefulBatchLogic.RETAIN

    def snapshot(self) -> bytes:
        """The partition's whole state."""
        self._runs.settle()
        return self._stats.snapshot()

    def _count(self, partition: int, out: Output) -> None:
        for outcome, number in self._stats.counts.items():
            RECORDS.labels(outcome).inc(number)
        self._stats.counts.clear()
        PUBLISHED.inc(len(out.published))
        WATERMARK.labels(partition).set(self._stats.watermark)
        HOLES.labels(partition).set(self._stats.holes)


def published(item: tuple[str, Output]) -> tuple[str, RecordColumns]:
    """The SecondStats among the outputs.

    None are passed on too: a partition in which nothing is traded still has heartbeats, and at each the Redis sink sees
    to what it has sent before and Redis has not answered.
    """
    part, output = item
    return part, output.published


def rejected(item: tuple[str, Output]) -> tuple[str, list[Record]] | None:
    """The DLQ records among the outputs."""
    part, output = item
    return (part, output.rejected) if output.rejected else None


def tune_gc() -> None:
    """Spare the collector what is there for good, and every chunk's messages, which hold no cycles.

    By default each chunk of 10,000 messages sets off a dozen collections: a third of the flow's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


def build_flow(
    source: Source[tuple[str, Chunk]],
    stats_sink: Sink[tuple[str, RecordColumns]],
    last_sink: Sink[tuple[str, RecordColumns]],
    rejects_sink: Sink[tuple[str, list[Record]]],
    *,
    allowed_lateness_ms: int = 200,
    revision_horizon_ms: int = 30 * 60 * 1000,
) -> Dataflow:
    """The pipeline; state is kept by Kafka partition. Step ids key recovery and never change."""
    flow = Dataflow("second_stats")
    chunks = op.input("raw_trades", flow, source)
    outputs = op.stateful_batch(
        "second_stats", chunks, lambda state: SecondStatsStep(allowed_lateness_ms, revision_horizon_ms, state)
    )
    records = op.map("published", outputs, published)
    op.output("kafka", records, stats_sink)
    op.output("redis", records, last_sink)
    op.output("dlq", op.filter_map("rejected", outputs, rejected), rejects_sink)
    return flow


def flow() -> Dataflow:
    """The flow on its real ends; what `bytewax.run` looks for."""
    settings = Settings()
    setup_logging(settings.log_level)
    use_kafka_tls(settings.tls("kafka"))
    drain.install()
    forget_uncommitted_of_this_run()
    brokers = settings.bootstrap_servers
    raw = raw_aggtrade(settings.raw_retention_bytes)
    topic = replace(raw, name=settings.kafka_topic or raw.name)
    create_topics(brokers, [topic.dlq, SECONDSTAT] if settings.kafka_topic else [raw, raw.dlq, SECONDSTAT])
    source = KafkaSource(brokers, topic.name, SECOND_STATS_GROUP)
    tune_gc()
    serve_health(settings.host, settings.health_port, source.liveness.reason)
    return build_flow(
        source,
        KafkaSink(brokers, raw.partitions),
        RedisSink(*split_address(settings.redis_addr, 6379), raw.partitions, LAST_STATS, settings.tls("redis")),
        KafkaSink(brokers, raw.partitions),
        allowed_lateness_ms=settings.allowed_lateness_ms,
        revision_horizon_ms=round(settings.revision_horizon * 1000),
    )
