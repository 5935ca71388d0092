"""Stores of a benchmark's own, on free loopback ports, and the cores that things run on."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from infra.local.kafka import kafka
from infra.local.part import Part, free_port, spawn, stop, wait_ready
from infra.local.valkey import valkey


@contextmanager
def running(parts: Sequence[Part], logs: Path, core: int | None) -> Iterator[None]:
    """The parts, ready, each on `core`; stopped at the end."""
    with ExitStack() as stack:
        for part in parts:
            part.prepare()
            process = spawn(part, logs / f"{part.name}.log")
            stack.callback(stop, part, process)
            if core is not None:
                os.sched_setaffinity(process.pid, {core})
            wait_ready(part, process)
        yield


@contextmanager
def stores(core: int | None = None) -> Iterator[tuple[str, str]]:
    """(bootstrap servers of a Kafka broker, address of a Redis-protocol server)."""
    with TemporaryDirectory(prefix="tracker-bench-") as directory:
        data = Path(directory)
        broker, redis = kafka(data / "kafka", free_port()), valkey(data / "valkey", free_port())
        with running([broker, redis], data, core):
            yield broker.address, redis.address


def cores() -> tuple[int | None, int | None]:
    """(core for the stores, core for what is measured), apart where there are two; None where nothing can be pinned."""
    if sys.platform != "linux":
        return None, None
    usable = sorted(os.sched_getaffinity(0))
    return (usable[0], usable[1]) if len(usable) > 1 else (None, None)
