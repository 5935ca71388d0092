"""Starts parts in dependency order, keeps them running, and stops them in the opposite order.

One loop on the main thread owns all state; what blocks (preparing, probing) runs in threads and is polled.

    waiting → preparing → starting → up
                  ▲          │        │
                  └── died ◄─┴────────┘   restarted with growing pauses; too often within a minute ends the stack
"""

import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from flows.domain.errors import TrackerError
from infra.local.log_files import LogFiles
from infra.local.part import Part, kill_session, spawn
from infra.local.state import PartState, StackState


@dataclass(frozen=True)
class Limits:
    """The supervisor's patience, in seconds."""

    deaths: int = 5  # as many within `deaths_within_s` end the stack
    deaths_within_s: float = 60.0
    first_pause_s: float = 0.5  # before the first restart; doubled each time
    longest_pause_s: float = 8.0
    ready_within_s: float = 120.0
    stop_within_s: float = 12.0  # for the whole stack; what is left is killed
    tick_s: float = 0.05
    probe_every_s: float = 0.2
    report_every_s: float = 10.0  # how often it tells why a part is not ready yet


class StackFailed(TrackerError):
    """The stack can't go on; the message names the part, the reason and where its log is."""


@dataclass
class _Unit:
    part: Part
    row: PartState
    process: subprocess.Popen[bytes] | None = None
    work: Future[object] | None = None  # prepare or a probe, whichever the state needs
    deaths: deque[float] = field(default_factory=deque)
    retry_at: float = 0.0
    deadline: float = 0.0
    next_probe: float = 0.0
    next_report: float = 0.0
    was_up: bool = False

    def become(self, state: str, note: str | None = None) -> None:
        self.row.state = state
        self.row.since_ms = time.time_ns() // 1_000_000
        if note is not None:
            self.row.note = note

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Stop:
    """Whether the stack is to stop.

    Signal handlers set it, so it is no Event: they would wait for a lock that the thread they interrupt may hold.
    """

    def __init__(self) -> None:
        self.asked = False

    def set(self) -> None:
        """Ask for it, from anywhere."""
        self.asked = True


class Supervisor:
    """Runs `parts` until it is asked to stop; `report(name, text)` gets a line for people at each event."""

    def __init__(
        self,
        parts: Sequence[Part],
        home: Path,
        *,
        state: StackState,
        report: Callable[[str, str], None],
        env: Mapping[str, str],
        limits: Limits | None = None,
    ) -> None:
        self._home, self._state, self._report, self._env = home, state, report, env
        self._limits = limits or Limits()
        names = {part.name for part in parts}
        self._units: dict[str, _Unit] = {}
        for part in parts:
            if missing := set(part.after) - names:
                raise ValueError(f"{part.name} waits for parts that are not there: {missing}")
            row = PartState(part.name, "waiting", part.address, part.probe, part.health, note=part.note)
            self._units[part.name] = _Unit(part, row)
        self._state.parts = [unit.row for unit in self._units.values()]
        self._threads = ThreadPoolExecutor(len(parts) + 1, thread_name_prefix="supervisor")
        self._logs = LogFiles(home, list(self._units))

    def run(
        self,
        stop: Stop,
        on_ready: Callable[[], None] = lambda: None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        """Start everything, call `on_ready` once all parts are up, then keep them so until it is asked to `stop`.

        `on_stop` is called when stopping begins, for whatever reason.

        Call it from the main thread. Whatever happens, no process is left. Raises StackFailed.
        """
        ready = False
        self._logs.rotate()
        try:
            while not stop.asked:
                time.sleep(self._limits.tick_s)
                changed = [unit for unit in self._units.values() if self._advance(unit)]
                if changed:
                    self._state.write(self._home)
                if not ready and all(unit.row.state == "up" for unit in self._units.values()):
                    ready = True
                    on_ready()
                self._logs.trim()
        finally:
            try:
                on_stop()
            finally:
                self._stop_all()

    def _advance(self, unit: _Unit) -> bool:
        """Take the unit's next step if it is due; returns whether its state changed."""
        before = unit.row.state
        match before:
            case "waiting":
                if all(self._units[name].was_up for name in unit.part.after):
                    unit.become("preparing")
                    unit.work = self._threads.submit(unit.part.prepare)
            case "preparing":
                self._after_preparing(unit)
            case "starting":
                self._after_starting(unit)
            case "up":
                if unit.part.command and not unit.runs:
                    self._died(unit)
            case "died" if time.monotonic() >= unit.retry_at:
                unit.row.restarts += 1
                unit.become("preparing")
                unit.work = self._threads.submit(unit.part.prepare)
        return unit.row.state != before

    def _after_preparing(self, unit: _Unit) -> None:
        if unit.work is None or not unit.work.done():
            return
        error, unit.work = unit.work.exception(), None
        if error is not None and not isinstance(error, TrackerError | OSError):
            raise error
        if error is not None and unit.row.restarts == 0:
            self._fail(unit, f"{unit.part.name} could not be prepared: {error}")
        if error is not None:
            self._died(unit, str(error))
            return
        if unit.part.command:
            unit.process = spawn(unit.part, self._logs.path(unit.part.name), self._env)
            unit.row.pid = unit.process.pid
            unit.row.created_s = _created_s(unit.process.pid)
        unit.deadline = time.monotonic() + self._limits.ready_within_s
        unit.next_report = time.monotonic() + self._limits.report_every_s
        unit.become("starting")

    def _after_starting(self, unit: _Unit) -> None:
        if unit.part.command and not unit.runs:
            unit.work = None
            self._died(unit)
            return
        now = time.monotonic()
        if unit.work is None and now >= unit.next_probe:
            unit.work = self._threads.submit(unit.part.ready)
        if unit.work is None or not unit.work.done():
            return
        reason, unit.work = unit.work.result(), None
        unit.next_probe = now + self._limits.probe_every_s
        if reason is None:
            unit.become("up", unit.part.note)
            unit.was_up = True
            self._report(unit.part.name, "up again" if unit.row.restarts else "up")
            return
        if now > unit.deadline:
            self._fail(
                unit,
                f"{unit.part.name} ({unit.part.address}) was not ready in "
                f"{self._limits.ready_within_s:.0f} s: {reason}",
            )
        if now > unit.next_report:
            unit.next_report = now + self._limits.report_every_s
            self._report(unit.part.name, f"not ready yet: {reason}")

    def _died(self, unit: _Unit, reason: str = "") -> None:
        limits, now = self._limits, time.monotonic()
        if unit.process is not None:
            kill_session(unit.process.pid)  # what it may have started itself
            reason = reason or _how_it_ended(unit.process.returncode)
        unit.row.pid = unit.row.created_s = None
        unit.deaths.append(now)
        while unit.deaths[0] < now - limits.deaths_within_s:
            unit.deaths.popleft()
        if len(unit.deaths) >= limits.deaths:
            self._fail(
                unit,
                f"{unit.part.name} died {len(unit.deaths)} times within {limits.deaths_within_s:.0f} s, "
                f"the last time: {reason}",
            )
        pause = min(limits.first_pause_s * 2 ** (len(unit.deaths) - 1), limits.longest_pause_s)
        unit.retry_at = now + pause
        unit.become("died", reason)
        self._report(unit.part.name, f"died ({reason}); starting it again in {pause:.1f} s")

    def _fail(self, unit: _Unit, message: str) -> None:
        unit.become("failed", message)
        raise StackFailed(f"{message}\n{self._logs.end_of(unit.part.name)}".rstrip())

    def _stop_all(self) -> None:
        """Signal each part once those that use it are gone; kill what is there when the time is up."""
        deadline = time.monotonic() + self._limits.stop_within_s
        signalled: set[str] = set()
        while running := {name: unit for name, unit in self._units.items() if unit.runs}:
            if time.monotonic() > deadline:
                self._report("stack", f"killing what did not stop in time: {', '.join(running)}")
                for unit in running.values():
                    if unit.process:
                        kill_session(unit.process.pid)
            used = {name for unit in running.values() for name in unit.part.after}
            for name, unit in running.items():
                if name not in used and name not in signalled and unit.process:
                    signalled.add(name)
                    unit.process.send_signal(unit.part.stop_signal)
            time.sleep(self._limits.tick_s)
        for unit in self._units.values():
            if unit.row.state != "failed":
                unit.become("stopped")
            unit.row.pid = unit.row.created_s = None
        # A preparation has subprocesses of its own: let it end, but for a download, which may take minutes.
        self._threads.shutdown(wait=False, cancel_futures=True)
        wait([u.work for u in self._units.values() if u.work], timeout=max(0, deadline - time.monotonic()))
        self._state.write(self._home)


def _created_s(pid: int) -> float | None:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:  # gone already; the next step sees that
        return None


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
