"""Every topic, key, channel and table name, with its settings, once."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from infra.tls import kafka_security

WEEK_MS = 7 * 24 * 3600 * 1000
ANY_TIME_MS = str(2**63 - 1)
# A broker refuses records more than an hour ahead by default; recordings and skewed clocks may be.
RAW_CONFIG = {"message.timestamp.type": "CreateTime", "message.timestamp.after.max.ms": ANY_TIME_MS}
PARTITIONER = "murmur2_random"  # as Java's default does
LARGEST_DEAD_LETTER = 2 * 1024 * 1024  # bytes: the largest record that Kafka takes (1 MiB), with the headers of a DLQ


@dataclass(frozen=True)
class Topic:
    """A Kafka topic: its name, partition count and broker-side settings."""

    name: str
    partitions: int
    config: dict[str, str] = field(default_factory=dict)

    @property
    def dlq(self) -> "Topic":
        """Where poison records of this topic go."""
        return Topic(
            f"{self.name}.dlq", 1, {"retention.ms": "-1", "max.message.bytes": str(LARGEST_DEAD_LETTER), **RAW_CONFIG}
        )


def raw_aggtrade(retention_bytes: int) -> Topic:
    """`binance.raw.aggtrade`: live for 7 days and at most `retention_bytes` in all."""
    return Topic(
        RAW_AGGTRADE,
        8,
        {**RAW_CONFIG, "retention.ms": str(WEEK_MS), "retention.bytes": str(max(1, retention_bytes // 8))},
    )


def imported(name: str) -> Topic:
    """A raw topic for recordings: keeps everything, since retention goes by record timestamps."""
    return Topic(name, 8, {**RAW_CONFIG, "retention.ms": "-1"})


RAW_AGGTRADE = "binance.raw.aggtrade"
RAW_MINITICKER = Topic("binance.raw.miniticker", 3, {**RAW_CONFIG, "retention.ms": str(WEEK_MS)})
SECONDSTAT = Topic("binance.secondstat", 8, {**RAW_CONFIG, "retention.ms": str(WEEK_MS)})
MINITICKER = Topic("binance.miniticker", 3, {**RAW_CONFIG, "retention.ms": str(WEEK_MS)})
SUBSCRIPTIONS = Topic("tracker.subscriptions", 1, {"cleanup.policy": "compact"})
GAPS = Topic("tracker.gaps", 1, {"cleanup.policy": "compact"})


def all_topics(raw_retention_bytes: int) -> list[Topic]:
    """Every topic of a live system."""
    raw = raw_aggtrade(raw_retention_bytes)
    return [
        raw,
        raw.dlq,
        RAW_MINITICKER,
        RAW_MINITICKER.dlq,
        SECONDSTAT,
        SECONDSTAT.dlq,
        MINITICKER,
        MINITICKER.dlq,
        SUBSCRIPTIONS,
        GAPS,
    ]


# Redis
def secondstat_channel(symbol: str) -> str:
    """The pub/sub channel of a symbol's SecondStats."""
    return symbol.lower()


def secondstat_last_key(symbol: str) -> str:
    """The key that holds a symbol's newest SecondStat."""
    return f"secondstat:last:{symbol.lower()}"


def miniticker_last_key(symbol: str) -> str:
    """The key that holds a symbol's newest miniticker."""
    return f"miniticker:last:{symbol.lower()}"


# Consumer groups
SECOND_STATS_GROUP = "second-stats"
MINITICKERS_GROUP = "minitickers"
CLICKHOUSE_GROUP = "clickhouse-consumer-group"


_ANSWER_S = 20  # shorter than the waits below, so that a broker that is away is a KafkaException


def create_topics(bootstrap_servers: str, topics: Iterable[Topic]) -> None:
    """Create the topics that are missing and set the configuration of those that exist; partitions are never changed.

    Raises KafkaException when the broker refuses or does not answer.
    """
    wanted = list(topics)
    admin = AdminClient({**kafka_security(), "bootstrap.servers": bootstrap_servers})
    created = admin.create_topics(
        [NewTopic(t.name, t.partitions, 1, config=t.config) for t in wanted], request_timeout=_ANSWER_S
    )
    existing = []
    for topic in wanted:
        try:
            created[topic.name].result(30)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            existing.append(topic)
    if changed := [t for t in existing if t.config]:
        resources = [ConfigResource(ResourceType.TOPIC, t.name, incremental_configs=_entries(t)) for t in changed]
        for future in admin.incremental_alter_configs(resources, request_timeout=_ANSWER_S).values():
            future.result(30)
    _await_visible(admin, {t.name for t in wanted})


def _entries(topic: Topic) -> list[ConfigEntry]:
    return [ConfigEntry(k, v, incremental_operation=AlterConfigOpType.SET) for k, v in topic.config.items()]


def _await_visible(admin: AdminClient, names: set[str]) -> None:
    """A broker may answer "unknown topic" for a moment after it has created one."""
    deadline = time.monotonic() + 30
    while missing := names - {name for name, t in admin.list_topics(timeout=30).topics.items() if t.partitions}:
        if time.monotonic() > deadline:
            raise KafkaException(KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, f"created but not there: {missing}"))
        time.sleep(0.05)
