"""Stopping at a clean point: SIGTERM and SIGINT set a flag, every source ends, the last snapshot is taken, exit 0.

Bytewax by itself dies at once on SIGTERM, with nothing closed. How a flow ends that was told to stop:

- exit 0, within a second or so: all that was read is delivered, and its snapshot is taken;
- exit 0 before it has read anything, while it still waits for Kafka at its start;
- exit 1 after GRACE_S: a sink's store is away, and the sink says which (`give_up`). What the snapshot does not cover is
  read and published again;
- exit 1 after LIMIT_S: the same, where a library waits for a store in C, and nothing else would end it.

All processes of a cluster are to be told: one alone waits for the others. Where one ends with exit 1, Bytewax may abort
the others (SIGABRT), as whenever a peer dies; each has said after HINT_S that it is not at its end.
"""

import logging
import os
import signal
import socket
import threading
import time
from types import FrameType
from typing import NoReturn

log = logging.getLogger(__name__)

HINT_S = 3.0  # after which the log says that the end does not come
GRACE_S = 5.0  # what a sink may still wait for a store that is away
LIMIT_S = 7.5  # when the process ends wherever it stands; `tracker up` kills after 8 s
_asked = threading.Event()
_asked_at = 0.0
_reading = False
_code_at_limit = 1
_wakeup: list[socket.socket] = []  # open as long as the process lives


def install(code_at_limit: int = 1) -> None:
    """Make SIGTERM and SIGINT ask for a drain; only the main thread may call this.

    `code_at_limit` is the exit code after LIMIT_S: 0 where such an end is as good as any.
    """
    global _code_at_limit  # noqa: PLW0603 - the process has one exit code
    _code_at_limit = code_at_limit
    if not _wakeup:
        reader, writer = socket.socketpair()
        _wakeup[:] = reader, writer
        threading.Thread(target=_end_in_time, args=(reader,), name="drain", daemon=True).start()
    _wakeup[1].setblocking(False)
    signal.set_wakeup_fd(_wakeup[1].fileno(), warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, _heard_by_the_thread)
    signal.signal(signal.SIGINT, _heard_by_the_thread)


def _heard_by_the_thread(_signum: int, _frame: FrameType | None) -> None:
    """Set nothing here: where it interrupts `wait`, the event's lock is held by this very thread."""


def fail() -> None:
    """Ask for a drain in which nothing makes the exit code 0 any more: what a thread does that can't go on."""
    global _code_at_limit  # noqa: PLW0603
    _code_at_limit = 1
    signal.raise_signal(signal.SIGTERM)


def _end_in_time(signals: socket.socket) -> None:
    """Hears of a signal also while the main thread is in C, where no Python handler runs."""
    global _asked_at  # noqa: PLW0603 - the process as a whole is asked
    while signals.recv(1)[0] not in (signal.SIGTERM, signal.SIGINT):
        pass
    _asked_at = time.monotonic()
    _asked.set()
    threading.Thread(target=_end_without_a_word, name="limit", daemon=True).start()
    time.sleep(1)
    if not _reading:
        log.info("told to stop before anything was read")
        _exit(0)
    time.sleep(HINT_S - 1)
    log.warning("not at an end %.1f s after the signal: a store does not answer, here or to another process", HINT_S)
    time.sleep(LIMIT_S - HINT_S)
    log.error("a store does not answer: ending %.1f s after the signal; what is not committed comes again", LIMIT_S)
    _exit(_code_at_limit)


def _end_without_a_word() -> None:
    """Where nobody reads the log, writing to it takes for ever."""
    time.sleep(LIMIT_S + 0.2)
    os._exit(_code_at_limit)


def give_up(reason: str) -> NoReturn:
    """End this process with exit 1, from any of its threads: what a sink does that is `overdue`.

    An exception would go through Bytewax, which closes every other sink on its way: each would wait for its own store.
    """
    log.error("%s; what is not committed comes again", reason)
    _exit(1)


def _exit(code: int) -> NoReturn:
    logging.shutdown()
    os._exit(code)


def draining() -> bool:
    """Whether this process has been asked to stop. Sources ask this before each read."""
    global _reading  # noqa: PLW0603 - the process as a whole has begun
    asked = _asked.is_set()
    if not asked:
        _reading = True
    return asked


def overdue() -> bool:
    """Whether it was asked so long ago that waiting for a store any longer is no use."""
    return _asked.is_set() and time.monotonic() - _asked_at > GRACE_S


def wait(seconds: float) -> None:
    """Pause a sink that waits for a store; a drain ends the pause early."""
    _asked.wait(seconds)
    if _asked.is_set():
        time.sleep(0.05)  # the flag stays set: do not spin through the grace
