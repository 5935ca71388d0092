"""The state of each part as it is now: asked from the part, never taken from what the supervisor wrote."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from flows import channels
from infra.local.probes import http_get, probe
from infra.local.state import PartState, StackState, find_process

KAFKA_TIMEOUT_S = 4.0
# Part → (its consumer group, the topic it reads, the topic whose newest record says when it last did something).
GROUPS = {
    "second-stats": (channels.SECOND_STATS_GROUP, channels.RAW_AGGTRADE, channels.SECONDSTAT.name),
    "minitickers": (channels.MINITICKERS_GROUP, channels.RAW_MINITICKER.name, channels.MINITICKER.name),
    "kafka-clickhouse": (channels.CLICKHOUSE_GROUP, channels.MINITICKER.name, channels.MINITICKER.name),
}


@dataclass
class PartVitals:
    """One part. `lag` is in records not yet committed; `hint` says what to do when the part is not well."""

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
    if "kafka" in rows and rows["kafka"].up:
        _add_progress(rows["kafka"].address, rows)
    if "ingest" in rows and streams.result():
        rows["ingest"].last_event_age_s = _age_s(streams.result().get("last_event_ms"))
    return StackVitals(parts, subscriptions.result())


def _examine_part(part: PartState) -> PartVitals:
    process = find_process(part.pid, part.created_s)
    ours = part.state != "up" or part.created_s is not None  # an external server has no process of ours
    detail = f"the supervisor says: {part.state} {part.note}".strip() if ours and process is None else ""
    detail = detail or probe(part.probe) or (probe(part.health) if part.health else None) or ""
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
        hint="" if up else f"{detail}; see `tracker logs {part.name}`",
    )


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
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, "log_level": 0})
    try:
        topics = admin.list_topics(timeout=KAFKA_TIMEOUT_S).topics
    except KafkaException:
        return
    for name, (group, source, output) in GROUPS.items():
        if name not in rows:
            continue
        try:
            if source in topics:
                rows[name].lag = _lag(admin, group, _partitions(source, topics))
            if output in topics:
                rows[name].last_event_age_s = _age_s(_newest_ms(admin, _partitions(output, topics)))
        except KafkaException as error:
            rows[name].note = f"lag unknown: {error.args[0].str()}"


def _partitions(topic: str, topics: Any) -> list[TopicPartition]:
    return [TopicPartition(topic, number) for number in topics[topic].partitions]


def _lag(admin: AdminClient, group: str, partitions: list[TopicPartition]) -> int:
    """Records behind the group's committed offsets; a partition without one counts from its beginning."""
    wanted = ConsumerGroupTopicPartitions(group, partitions)
    answer = admin.list_consumer_group_offsets([wanted], request_timeout=KAFKA_TIMEOUT_S)[group].result()
    committed = {p.partition: p.offset for p in answer.topic_partitions if p.offset >= 0}
    ends = _offsets(admin, partitions, OffsetSpec.latest())
    begins = _offsets(admin, partitions, OffsetSpec.earliest())
    return sum(
        max(0, end.offset - max(committed.get(number, 0), begins[number].offset)) for number, end in ends.items()
    )


def _newest_ms(admin: AdminClient, partitions: list[TopicPartition]) -> int | None:
    newest = _offsets(admin, partitions, OffsetSpec.max_timestamp())
    return max((found.timestamp for found in newest.values() if found.timestamp > 0), default=None)


def _offsets(admin: AdminClient, partitions: list[TopicPartition], spec: OffsetSpec) -> dict[int, Any]:
    futures = admin.list_offsets(dict.fromkeys(partitions, spec), request_timeout=KAFKA_TIMEOUT_S)
    return {asked.partition: future.result() for asked, future in futures.items()}


def _age_s(event_ms: int | None) -> float | None:
    return None if event_ms is None else max(0.0, time.time() - event_ms / 1000)
