"""What a supervised process is, and how one is started, awaited and stopped.

Everything that runs locally is a `Part`: a foreground child process that is configured by its command line
and environment, answers a readiness probe, and goes away on one signal.
"""

import contextlib
import ctypes
import errno
import itertools
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flows.domain.errors import TrackerError
from infra.probes import probe

LOOPBACK = "127.0.0.1"
FREE_PORTS = range(25_000, 32_768)  # above every default with any PORT_OFFSET but gRPC's, below those of clients
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


class PartFailed(TrackerError):
    """A part could not be prepared, or died before it was ready; the message says why and what to do."""


def nothing_to_prepare() -> None:
    """Most parts need no files before they start."""


@dataclass(frozen=True)
class Part:
    """One process of the stack.

    A part without a command is somebody else's server: it is only asked whether it is up.
    `prepare` runs before each start: it makes what the process needs on disk, is idempotent, repairs what a
    `kill -9` left behind, and may take minutes on the first run.
    """

    name: str
    command: Sequence[str]
    probe: str = ""  # the URL that infra.probes asks; "": it is ready when it runs
    address: str = ""  # where its clients reach it, for people
    health: str = ""  # URL of its /readyz where the probe is something else
    note: str = ""  # what people should know, e.g. that the usual port was busy
    env: Mapping[str, str] = field(default_factory=dict)  # on top of the inherited environment
    after: tuple[str, ...] = ()
    prepare: Callable[[], None] = nothing_to_prepare
    stop_signal: signal.Signals = signal.SIGTERM
    user: str | None = None  # run as this user; only root may say so

    def ready(self) -> str | None:
        """None when it does its work, else the reason; blocks for about two seconds at most."""
        return probe(self.probe)


def free_port(host: str = LOOPBACK) -> int:
    """A TCP port that nothing listens on right now, and that no client is given as its own: those are above.

    This process has not had it before, as long as there are others: who got it may not listen yet.
    """
    return next(port for port in _candidates if is_free(port, host))


_candidates: Iterator[int]


def take_ports_of(share: int, shares: int) -> None:
    """Give out ports of this share alone, for processes that work side by side."""
    global _candidates  # noqa: PLW0603 - one per process, as ports are
    ports = FREE_PORTS[share::shares]
    _candidates = itertools.cycle(random.sample(ports, len(ports)))


take_ports_of(0, 1)


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether no other server has `host:port`. Raises OSError when it can't be had for another reason."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as sock:
        # As servers do: a port whose last connections are in TIME_WAIT is free.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
        return True


def run_as(user: str | None) -> dict[str, Any]:
    """Arguments that make `subprocess` run something as `user` and its group; None: as we are."""
    if user is None:
        return {}
    account = pwd.getpwnam(user)
    return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}


def spawn(part: Part, log: Path, base_env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start the part's process with its output appended to `log`. Call it from the main thread only.

    The child leads a session of its own, so a Ctrl-C in the terminal reaches the supervisor alone. On Linux
    the kernel sends it its stop signal should this process die without a word; that signal is tied to the
    thread which started the child, hence the main thread.
    """

    def die_with_parent() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, part.stop_signal)

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(part.command),
            env={**(os.environ if base_env is None else base_env), **part.env},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **run_as(part.user),
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, on a function that is loaded already
        )


def wait_ready(part: Part, process: subprocess.Popen[bytes], timeout_s: float = 60.0) -> None:
    """Block until the part is ready. Raises PartFailed when it dies before, or when the time is up."""
    deadline = time.monotonic() + timeout_s
    while (reason := part.ready()) is not None:
        if (code := process.poll()) is not None:
            raise PartFailed(f"{part.name} ended with exit code {code} before it was ready")
        if time.monotonic() > deadline:
            raise PartFailed(f"{part.name} was not ready within {timeout_s:.0f} s: {reason}")
        time.sleep(0.05)


def stop(part: Part, process: subprocess.Popen[bytes], grace_s: float = 8.0) -> None:
    """Send the part's stop signal, and SIGKILL to its whole session when it is there after `grace_s`."""
    if process.poll() is None:
        process.send_signal(part.stop_signal)
        try:
            process.wait(grace_s)
        except subprocess.TimeoutExpired:
            kill_session(process.pid)
            process.wait()


@contextlib.contextmanager
def running(part: Part, log: Path) -> Iterator[int]:
    """The part alone, ready; gives its pid. A failure shows the end of its log."""
    part.prepare()
    process = spawn(part, log)
    try:
        wait_ready(part, process)
        yield process.pid
    except PartFailed as error:
        tail = log.read_text(errors="replace")[-2000:]
        raise PartFailed(f"{error}\n{tail}") from error
    finally:
        stop(part, process)


def kill_session(pid: int) -> None:
    """SIGKILL the process group that `pid` leads; no error when it is gone."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return
