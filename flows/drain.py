"""Stopping at a clean point: SIGTERM and SIGINT set a flag, every source ends, the last snapshot is taken, exit 0.

Bytewax by itself dies at once on SIGTERM, with nothing closed.
"""

import logging
import signal
import threading
import time
from types import FrameType

log = logging.getLogger(__name__)

GRACE_S = 8.0  # what a sink may still wait for a store that is away
_asked = threading.Event()
_asked_at = 0.0


def install() -> None:
    """Make SIGTERM and SIGINT ask for a drain; only the main thread may call this."""
    signal.signal(signal.SIGTERM, _ask)
    signal.signal(signal.SIGINT, _ask)


def _ask(signum: int, _frame: FrameType | None) -> None:
    global _asked_at  # noqa: PLW0603 - a signal handler has nowhere else to leave word
    if not _asked.is_set():
        _asked_at = time.monotonic()
    _asked.set()


def draining() -> bool:
    """Whether this process has been asked to stop."""
    return _asked.is_set()


def overdue() -> bool:
    """Whether it was asked so long ago that waiting for a store any longer is no use."""
    return _asked.is_set() and time.monotonic() - _asked_at > GRACE_S


def wait(seconds: float) -> None:
    """Pause a sink that waits for a store; a drain ends the pause early."""
    _asked.wait(seconds)
    if _asked.is_set():
        time.sleep(0.05)  # the flag stays set: do not spin through the grace
