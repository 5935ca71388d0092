"""The state of each part as it is now: asked from the part, never taken from what the supervisor wrote."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

import psutil
from confluent_kafka import Consumer, KafkaException, TopicPartition

from flows import channels
from infra.local.stack import NEEDS
from infra.local.state import PartState, StackState, find_process
from infra.probes import http_get, probe
from infra.tls import kafka_security
from tracker import advice

KAFKA_TIMEOUT_S = 4.0
# Part → (its consumer group, the topics it reads, the topic whose newest record says when it last did something).
GROUPS = {
    "second-stats": (channels.SECOND_STATS_GROUP, [channels.RAW_AGGTRADE], channels.SECONDSTAT.name),
    "minitickers": (channels.MINITICKERS_GROUP, [channels.RAW_MINITICKER.name], channels.MINITICKER.name),
    "kafka-clickhouse": (
        channels.CLICKHOUSE_GROUP,
        [channels.MINITICKER.name, channels.SECONDSTAT.name],
        channels.MINITICKER.name,
    ),
}
# Part → the parts without which it can't work.
CAN_STOP = {**NEEDS, "ingest": ("kafka", "exchange")}


@dataclass
class PartVitals:
    """One part. `lag` is in records not yet committed, `memory_mb` the process's resident memory.

    `hint` says what to do when the part is not well.
    """

    name: str
    up: bool
    address: str
    pid: int | None
    uptime_s: float | None
    restarts: int
    note: str
    detail: str = ""
    hint: str = ""
    lag: int | None = None
    last_event_age_s: float | None = None
    memory_mb: float | None = None


@dataclass(frozen=True)
class StackVitals:
    """All parts, and the aggregator's answer to GET /subscriptions (None without one)."""

    parts: list[PartVitals]
    subscriptions: Any


def examine(state: StackState) -> StackVitals:
    """Ask every part, all at once; takes a few seconds at most."""
    with ThreadPoolExecutor(len(state.parts) + 1) as threads:
        subscriptions = threads.submit(_json_of, state, "aggregator", "/subscriptions")
        streams = threads.submit(_json_of, state, "ingest", "/streams")
        parts = list(threads.map(_examine_part, state.parts))
    rows = {part.name: part for part in parts}
    _add_causes(rows)
    if "kafka" in rows and rows["kafka"].up:
        _add_progress(rows["kafka"].address, rows)
    if "ingest" in rows and streams.result():
        ingest = rows["ingest"]
        ingest.last_event_age_s = _age_s(streams.result().get("last_event_ms"))
        ingest.hint = ingest.hint or advice.for_silence(ingest.name, ingest.last_event_age_s)
    return StackVitals(parts, subscriptions.result())


def _examine_part(part: PartState) -> PartVitals:
    process = find_process(part.pid, part.created_s)
    ours = part.state != "up" or part.created_s is not None  # an external server has no process of ours
    detail = f"the supervisor says: {part.state} {part.note}".strip() if ours and process is None else ""
    detail = detail or _unwell(part) or ""
    up = not detail
    return PartVitals(
        name=part.name,
        up=up,
        address=part.address,
        pid=process.pid if process else None,
        uptime_s=time.time() - process.create_time() if process else None,
        restarts=part.restarts,
        note=part.note,
        detail=detail,
        memory_mb=_memory_mb(process),
        hint="" if up else advice.for_down(part, process.pid if process else None, detail),
    )


def _memory_mb(process: psutil.Process | None) -> float | None:
    try:
        return process.memory_info().rss / 1e6 if process else None
    except psutil.Error:  # gone meanwhile, or another user's where that is not shown
        return None


def _unwell(part: PartState) -> str | None:
    """Why a part does not do its work, in the words of its /readyz where it has one: gRPC's health has no reason."""
    said = probe(part.probe)
    return (probe(part.health) if part.health else None) or said


def _add_causes(rows: dict[str, PartVitals]) -> None:
    """A part that answers, and says that it can't work, is to be mended by what it needs, where that is down."""
    for row in rows.values():
        causes = [name for name in CAN_STOP.get(row.name, ()) if name in rows and not rows[name].up]
        if causes and not row.up and row.pid is not None:
            row.hint = advice.for_consequence(row.detail, causes)


def _json_of(state: StackState, name: str, path: str) -> Any:
    """The JSON a part serves at `path`, or None when it does not."""
    part = next((part for part in state.parts if part.name == name), None)
    if part is None:
        return None
    base = (part.health or part.probe).removesuffix("/readyz")
    try:
        code, body = http_get(base + path)
        return json.loads(body) if code == 200 else None
    except (OSError, HTTPException, ValueError):
        return None


def _add_progress(bootstrap_servers: str, rows: dict[str, PartVitals]) -> None:
    """Lag and age of the last record of the parts that read and write Kafka; unknown where Kafka can't say."""
    for name, (group, sources, output) in GROUPS.items():
        if name not in rows:
            continue
        # It only asks as the group, and never joins it.
        consumer = Consumer(
            {
                **kafka_security(),
                "bootstrap.servers": bootstrap_servers,
                "group.id": group,
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        try:
            rows[name].lag = sum(_lag(consumer, _partitions(consumer, source)) for source in sources)
            rows[name].hint = rows[name].hint or advice.for_lag(name, rows[name].lag)
            rows[name].last_event_age_s = _age_s(_newest_ms(consumer, _partitions(consumer, output)))
        except KafkaException as error:
            rows[name].note = f"lag unknown: {error.args[0].str()}"
        finally:
            consumer.close()


def _partitions(consumer: Consumer, topic: str) -> list[TopicPartition]:
    found = consumer.list_topics(topic, timeout=KAFKA_TIMEOUT_S).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    return [TopicPartition(topic, number) for number in found.partitions]


def _lag(consumer: Consumer, partitions: list[TopicPartition]) -> int:
    """Records behind the group's committed offsets; a partition without one counts from its beginning."""
    lag = 0
    for committed in consumer.committed(partitions, timeout=KAFKA_TIMEOUT_S):
        low, high = consumer.get_watermark_offsets(committed, timeout=KAFKA_TIMEOUT_S)
        lag += max(0, high - max(committed.offset, low))
    return lag


def _newest_ms(consumer: Consumer, partitions: list[TopicPartition]) -> int | None:
    """The greatest timestamp among the partitions' last records, None when all are empty."""
    last = []
    for partition in partitions:
        low, high = consumer.get_watermark_offsets(partition, timeout=KAFKA_TIMEOUT_S)
        if high > low:
            last.append(TopicPartition(partition.topic, partition.partition, high - 1))
    if not last:
        return None
    consumer.assign(last)
    records = consumer.consume(len(last), timeout=1.0)
    return max((record.timestamp()[1] for record in records if not record.error()), default=None)


def _age_s(event_ms: int | None) -> float | None:
    return None if event_ms is None else max(0.0, time.time() - event_ms / 1000)
