"""What a running stack says about itself, in `stack.json` of its data directory, and the lock that keeps it single."""

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from flows.domain.errors import TrackerError

STATE_FILE = "stack.json"
LOCK_FILE = "stack.lock"
RECORDING = "recording"  # the data directory of `tracker up --recording`, beside those of the exchanges


class AlreadyRunning(TrackerError):
    """Another stack uses the data directory."""


@dataclass
class PartState:
    """One row of `tracker status`."""

    name: str
    state: str  # waiting, preparing, starting, up, died, stopped, failed
    address: str
    probe: str
    health: str = ""  # URL of its /readyz, where that is not the probe
    pid: int | None = None
    created_s: float | None = None  # the process's creation time: with the pid it names one process for good
    since_ms: int | None = None  # when it became what `state` says
    restarts: int = 0
    note: str = ""  # e.g. that the usual port was busy, or why it died


@dataclass
class StackState:
    """A running stack."""

    pid: int
    created_s: float
    exchange: str
    started_ms: int
    parts: list[PartState] = field(default_factory=list)

    @classmethod
    def of_this_process(cls, exchange: str, started_ms: int) -> "StackState":
        """The state of a stack whose supervisor is this process."""
        return cls(os.getpid(), psutil.Process().create_time(), exchange, started_ms)

    def write(self, home: Path) -> None:
        """Replace the state file in one step."""
        draft = home / f".{STATE_FILE}.draft"
        draft.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        draft.replace(home / STATE_FILE)

    @classmethod
    def read(cls, home: Path) -> "StackState | None":
        """The state that was written last, by a stack that may be gone; None when there is none."""
        try:
            fields = json.loads((home / STATE_FILE).read_text(encoding="utf-8"))
            return cls(**{**fields, "parts": [PartState(**part) for part in fields["parts"]]})
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def is_running(self) -> bool:
        """Whether its supervisor is alive."""
        return find_process(self.pid, self.created_s) is not None


def find_process(pid: int | None, created_s: float | None) -> psutil.Process | None:
    """The process that had this pid at this creation time, if it still lives; a reused pid is another process."""
    if pid is None or created_s is None:
        return None
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - created_s) < 0.05 and process.status() != psutil.STATUS_ZOMBIE:
            return process
    except psutil.Error:
        return None
    return None


@contextmanager
def only_stack(home: Path) -> Iterator[None]:
    """Hold the data directory. Raises AlreadyRunning when another stack does.

    The kernel frees the lock with the process, however that ends.
    """
    home.mkdir(parents=True, exist_ok=True)
    with (home / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            state = StackState.read(home)
            who = f" (pid {state.pid})" if state and state.is_running() else ""
            raise AlreadyRunning(
                f"a stack is already running in {home}{who}; stop it, or use another --data-dir and PORT_OFFSET"
            ) from None
        yield


def end_leftovers(home: Path, grace_s: float = 5.0) -> int:
    """End the processes of a stack whose supervisor was killed; returns how many there were. Hold the lock."""
    state = StackState.read(home)
    if state is None:
        return 0
    left = _alive(state)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    if not _gone(state, grace_s):
        for process in _alive(state):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        _gone(state, grace_s)
    (home / STATE_FILE).unlink(missing_ok=True)
    return len(left)


def _alive(state: StackState) -> list[psutil.Process]:
    return [found for part in state.parts if (found := find_process(part.pid, part.created_s))]


def _gone(state: StackState, within_s: float) -> bool:
    """Wait for the processes to end; one that is dead but not reaped by its new parent counts as ended."""
    deadline = time.monotonic() + within_s
    while _alive(state):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
