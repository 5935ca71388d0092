"""Processes of a benchmark: embedded stores, pinned to a core, ended with it."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from infra.local.kafka import kafka
from infra.local.part import LOOPBACK, free_port, running


def cores() -> tuple[int, int]:
    """(core of what is measured, core of everything else); the same one where there is no other."""
    if not hasattr(os, "sched_getaffinity"):
        return 0, 0
    available = sorted(os.sched_getaffinity(0))
    return available[-1], available[0]


def pin(pid: int, core: int) -> None:
    """Keep a process and all its threads on one core, where the system can do that."""
    if not hasattr(os, "sched_setaffinity"):
        return
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), {core})


@contextlib.contextmanager
def broker() -> Iterator[str]:
    """`bootstrap.servers` of a Kafka of one's own, on the core of everything else."""
    with tempfile.TemporaryDirectory(prefix="tracker-bench-") as directory:
        port = free_port()
        with running(kafka(Path(directory) / "kafka", port), Path(directory) / "kafka.log") as pid:
            pin(pid, cores()[1])
            yield f"{LOOPBACK}:{port}"
