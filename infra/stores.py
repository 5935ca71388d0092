"""Settings that each store has wherever it runs: embedded (`infra/local`), and in `compose.yaml` (a test compares).

Only what is the same everywhere: addresses, directories and passwords are the caller's.
"""

from collections.abc import Mapping

KAFKA_HEAP = "512m"
# A single broker that is its own controller, so everything has one replica.
KAFKA: Mapping[str, str] = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    # Consumers of one machine join together or not at all: waiting for stragglers only slows every start.
    "group.initial.rebalance.delay.ms": "0",
    # After a kill -9 the controller refuses the new process until the old one's session has run out.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "log.cleaner.dedupe.buffer.size": str(16 << 20),
    "log.retention.check.interval.ms": "60000",
}

# Nothing is kept on disk: each key is the last value of something that Kafka holds, is written again
# within a second or so, and may be evicted at any time, so every reader copes with an empty server.
REDIS: Mapping[str, str] = {
    "maxmemory": "256mb",
    "maxmemory-policy": "allkeys-lru",
    "save": "",
    "appendonly": "no",
}

CLICKHOUSE_USER = "default"
CLICKHOUSE_MEMORY_BYTES = 1_500_000_000
# What a browser's preflight request is answered: Tabix calls ClickHouse from another origin.
CLICKHOUSE_PREFLIGHT: Mapping[str, str] = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "origin, x-requested-with, x-clickhouse-format, x-clickhouse-user, "
    "x-clickhouse-key, x-clickhouse-database, authorization, content-type",
    "Access-Control-Max-Age": "86400",
}
