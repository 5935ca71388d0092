"""flows.second_stats on a bounded range, with the chunk size and the reader's stalls of the environment.

`python -m bytewax.run varied_flow`; ends by itself at the offsets `STOP` (JSON, by partition), with `{}` never.
"""

import json
import os
import random
import time
from datetime import UTC, datetime, timedelta

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from flows import drain
from flows.connectors.kafka_sink import KafkaSink
from flows.connectors.kafka_source import KafkaSource
from flows.connectors.redis_sink import RedisSink
from flows.recovery import forget_uncommitted_of_this_run
from flows.second_stats import LAST_STATS, build_flow

PARTITIONS = 8


class StallingSource(FixedPartitionedSource):
    """Another source that pauses after each batch, by chance; each partition by itself."""

    def __init__(self, inner, seed, longest_s):
        self.inner, self.seed, self.longest_s = inner, seed, longest_s

    def list_parts(self):
        return self.inner.list_parts()

    def build_part(self, step_id, for_part, resume_state):
        inner = self.inner.build_part(step_id, for_part, resume_state)
        return StallingPart(inner, random.Random(f"{self.seed} {for_part}"), self.longest_s)


class StallingPart(StatefulSourcePartition):
    def __init__(self, inner, rng, longest_s):
        self.inner, self.rng, self.longest_s = inner, rng, longest_s
        self.until = time.monotonic() + longest_s * rng.uniform(0, 4)

    def next_batch(self):
        if time.monotonic() < self.until and not drain.draining():
            return []
        batch = self.inner.next_batch()
        if batch and self.rng.random() < 0.5:
            self.until = time.monotonic() + self.longest_s * self.rng.choice([0.01, 0.1, 1]) * self.rng.random()
        return batch

    def next_awake(self):
        left = self.until - time.monotonic()
        if left <= 0:
            return self.inner.next_awake()
        return datetime.now(UTC) + timedelta(seconds=min(left, 0.1))  # a drain is seen in between

    def snapshot(self):
        return self.inner.snapshot()

    def close(self):
        self.inner.close()


def flow():
    env = os.environ
    drain.install()
    forget_uncommitted_of_this_run()
    print("ready to drain", flush=True)
    brokers = env["BROKERS"]
    stop = {int(partition): offset for partition, offset in json.loads(env["STOP"]).items()} or None
    source = KafkaSource(brokers, env["KAFKA_TOPIC"], chunk_size=int(env["CHUNK"]), stop=stop)
    if env["STALL_S"] != "0":
        source = StallingSource(source, env["STALL_SEED"], float(env["STALL_S"]))
    host, port = env["REDIS_ADDR"].split(":")
    return build_flow(
        source,
        KafkaSink(brokers, PARTITIONS),
        RedisSink(host, int(port), PARTITIONS, LAST_STATS),
        KafkaSink(brokers, PARTITIONS),
    )
