"""A PORT_OFFSET for each stack that a test starts: tests run side by side, and so may other checkouts."""

import fcntl
import tempfile
from pathlib import Path
from typing import IO

from infra.local.part import is_free
from infra.local.settle import HEALTH_PORTS, SERVICE_PORTS, STORE_PORTS

_claimed: list[IO[str]] = []  # the locks last as long as this process


def free_offset() -> int:
    """An offset at which every default port is free, and that no other test process takes."""
    usual = {*STORE_PORTS.values(), *SERVICE_PORTS.values(), *HEALTH_PORTS.values()}
    for offset in range(1_000, 15_000, 137):
        if _claim(offset) and all(is_free(port + offset) for port in usual):
            return offset
    raise AssertionError("no PORT_OFFSET with free ports")


def _claim(offset: int) -> bool:
    """Whether it is ours now; another process, or another user, may have it."""
    try:
        lock = (Path(tempfile.gettempdir()) / f"tracker-tests-offset-{offset}.lock").open("w")
    except OSError:
        return False
    _claimed.append(lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
