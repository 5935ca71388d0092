"""The supervisor, with small processes in the parts' places."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from infra.local.part import Part, PartFailed, free_port
from infra.local.state import AlreadyRunning, StackState, end_leftovers, find_process, only_stack
from infra.local.supervisor import Limits, StackFailed, Stop, Supervisor

QUICK = Limits(first_pause_s=0.05, longest_pause_s=0.2, tick_s=0.01, probe_every_s=0.02, stop_within_s=3)
SERVER = """
import signal, socket, sys
def ended(*_):
    open(sys.argv[2], "a").write(sys.argv[3] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, ended)
with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
    print("listening", flush=True)
    while True:
        server.accept()[0].close()
"""


def server(name: str, ended: Path, after: tuple[str, ...] = ()) -> Part:
    """A part that listens, and writes its name to `ended` when it is asked to stop."""
    port = free_port()
    command = [sys.executable, "-S", "-c", SERVER, str(port), str(ended), name]
    return Part(name, command, f"tcp://127.0.0.1:{port}", f"127.0.0.1:{port}", after=after)


class Stack:
    """A supervisor that runs in a thread of the test."""

    def __init__(self, home: Path, *parts: Part, limits: Limits = QUICK) -> None:
        self.home, self.lines, self.error = home, list[tuple[str, str]](), None
        self.ready, self._stop = threading.Event(), Stop()
        self.state = StackState.of_this_process("simulated", 0)
        report: Callable[[str, str], None] = lambda name, text: self.lines.append((name, text))  # noqa: E731
        self.supervisor = Supervisor(parts, home, state=self.state, report=report, env=os.environ, limits=limits)
        self._thread = threading.Thread(target=self._run)
        home.mkdir(exist_ok=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.supervisor.run(self._stop, self.ready.set)
        except StackFailed as error:
            self.error = error

    def stop(self) -> None:
        self._stop.set()
        self.join()

    def join(self) -> None:
        self._thread.join(15)
        assert not self._thread.is_alive()

    def row(self, name: str):
        return next(row for row in self.state.parts if row.name == name)


def eventually(condition: Callable[[], object], within_s: float = 10) -> None:
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.01)


@pytest.fixture
def ended(tmp_path: Path) -> Path:
    return tmp_path / "ended"


@pytest.fixture
def stacks(tmp_path: Path) -> Iterator[Callable[..., Stack]]:
    made: list[Stack] = []

    def make(*parts: Part, limits: Limits = QUICK) -> Stack:
        made.append(Stack(tmp_path / "home", *parts, limits=limits))
        return made[-1]

    yield make
    for stack in made:
        stack.stop()


def test_starts_in_order_and_stops_in_the_opposite_order(stacks, ended: Path) -> None:
    stack = stacks(
        server("service", ended, after=("store",)), server("store", ended), server("edge", ended, ("service",))
    )
    assert stack.ready.wait(10)
    assert stack.lines == [("store", "up"), ("service", "up"), ("edge", "up")]
    pids = [row.pid for row in stack.state.parts]
    stack.stop()
    assert ended.read_text().split() == ["edge", "service", "store"]
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert {row.state for row in StackState.read(stack.home).parts} == {"stopped"}


def test_a_part_that_is_killed_comes_back(stacks, ended: Path) -> None:
    stack = stacks(server("store", ended), server("service", ended, after=("store",)))
    assert stack.ready.wait(10)
    first, service = stack.row("store").pid, stack.row("service").pid
    os.kill(first, signal.SIGKILL)
    eventually(lambda: stack.row("store").state == "up" and stack.row("store").restarts == 1)
    assert stack.row("store").pid != first
    assert stack.row("service").pid == service
    assert ("store", "died (killed by SIGKILL); starting it again in 0.1 s") in stack.lines
    assert ("store", "up again") in stack.lines


def test_a_part_that_keeps_dying_ends_the_stack(stacks, ended: Path) -> None:
    hopeless = Part(
        "hopeless", [sys.executable, "-S", "-c", "print('no luck'); raise SystemExit(3)"], "tcp://127.0.0.1:1"
    )
    stack = stacks(server("store", ended), hopeless)
    stack.join()
    assert "hopeless died 5 times within 60 s, the last time: exit code 3" in str(stack.error)
    assert "no luck" in str(stack.error)
    assert ended.read_text() == "store\n"


def test_the_pauses_between_restarts_grow(stacks) -> None:
    stack = stacks(Part("hopeless", [sys.executable, "-S", "-c", "raise SystemExit(3)"], "tcp://127.0.0.1:1"))
    stack.join()
    assert [text.split()[-2] for _, text in stack.lines] == ["0.1", "0.1", "0.2", "0.2"]


def test_a_part_that_never_gets_ready_ends_the_stack(stacks) -> None:
    deaf = Part("deaf", [sys.executable, "-S", "-c", "import time; time.sleep(60)"], "tcp://127.0.0.1:1")
    stack = stacks(deaf, limits=replace(QUICK, ready_within_s=0.3, report_every_s=0.1))
    stack.join()
    assert stack.lines[0] == ("deaf", "not ready yet: 127.0.0.1:1: Connection refused")
    assert "deaf" in str(stack.error)
    assert "was not ready in" in str(stack.error)


def test_a_part_that_ignores_the_signal_is_killed(stacks) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('on', flush=True); time.sleep(60)"
    stack = stacks(Part("stubborn", [sys.executable, "-S", "-c", code]), limits=replace(QUICK, stop_within_s=0.3))
    assert stack.ready.wait(10)
    eventually(lambda: "on" in (stack.home / "logs" / "stubborn.log").read_text())
    began = time.monotonic()
    stack.stop()
    assert time.monotonic() - began < 3
    assert stack.row("stubborn").pid is None


def test_a_preparation_that_fails_says_why(stacks, ended: Path) -> None:
    def prepare() -> None:
        raise PartFailed("no disk")

    stack = stacks(replace(server("store", ended), prepare=prepare))
    stack.join()
    assert "store could not be prepared: no disk" in str(stack.error)


def test_somebody_elses_server_is_only_asked(stacks, ended: Path) -> None:
    own = server("own", ended)
    foreign = replace(own, name="foreign", command=(), after=("own",))
    stack = stacks(own, foreign)
    assert stack.ready.wait(10)
    assert stack.row("foreign").pid is None


def test_one_stack_a_data_directory(tmp_path: Path) -> None:
    with only_stack(tmp_path):
        StackState.of_this_process("simulated", 0).write(tmp_path)
        with pytest.raises(AlreadyRunning, match=rf"already running in .* \(pid {os.getpid()}\)"), only_stack(tmp_path):
            pass
    with only_stack(tmp_path):
        pass


SUPERVISED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from infra.local.state import StackState, only_stack
from infra.local.supervisor import Stop, Supervisor
from test_supervisor import QUICK, server
home = Path(sys.argv[1])
parts = [server("one", home / "ended"), server("two", home / "ended", after=("one",))]
with only_stack(home):
    state = StackState.of_this_process("simulated", 0)
    supervisor = Supervisor(parts, home, state=state, report=print, env=os.environ, limits=QUICK)
    supervisor.run(Stop(), lambda: print("ready", flush=True))
"""


def test_nothing_is_left_of_a_killed_stack(tmp_path: Path) -> None:
    script = textwrap.dedent(SUPERVISED).format(tests=str(Path(__file__).parent))
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert any(line == "ready\n" for line in process.stdout)
        process.kill()
    state = StackState.read(tmp_path)
    assert state
    assert not state.is_running()
    with only_stack(tmp_path):
        end_leftovers(tmp_path)
    assert not any(find_process(part.pid, part.created_s) for part in state.parts)
    assert not (tmp_path / "stack.json").exists()


def test_leftovers_are_known_by_their_creation_time(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]) as process:
        born = psutil.Process(process.pid).create_time()
        assert find_process(process.pid, born)
        assert find_process(process.pid, born - 100) is None
        process.kill()
