"""Poison records: nothing that can't be used is dropped without a trace."""

from flows.connectors.kafka_sink import Record
from flows.connectors.kafka_source import Chunk


def poison_record(chunk: Chunk, index: int, reason: str) -> Record:
    """The DLQ record of one record of a chunk: its bytes, and headers that say where it stood and what was wrong."""
    return Record(
        f"{chunk.topic}.dlq",
        chunk.keys[index],
        chunk.values[index],
        chunk.received_ms[index] or 0,
        [
            ("source_topic", chunk.topic.encode()),
            ("source_partition", str(chunk.partition).encode()),
            ("source_offset", str(chunk.offsets[index]).encode()),
            ("reason", reason.encode()),
        ],
    )
