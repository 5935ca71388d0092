"""`tracker up`: the whole stack in the foreground."""

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from infra.local.part import PartFailed
from infra.local.settle import settle_ports
from infra.local.stack import StackConfig, base_env, build_parts, external, home_of, selected
from infra.local.state import StackState, end_leftovers, only_stack
from infra.local.supervisor import Stop, Supervisor
from tracker.config import DataDir, Exchange, fail, load_settings, problems_shown


def up(
    more_recordings: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="More files for --recording.")
    ] = None,
    *,
    exchange: Exchange = None,
    recording: Annotated[
        list[Path] | None,
        typer.Option(help="Play recorded frames, their times moved to now.", metavar="FILE..."),
    ] = None,
    data_dir: DataDir = None,
    port_offset: Annotated[
        int | None, typer.Option(help="Added to every default port (PORT_OFFSET).", metavar="N")
    ] = None,
    only: Annotated[
        str | None,
        typer.Option(help="Start these parts and what they need, e.g. profile,exchange.", metavar="PART,..."),
    ] = None,
) -> None:
    """Start the whole stack and stay in the foreground; Ctrl-C stops it.

    Prints `ready: URL` when every part is healthy. Data stays in the data directory for the next start.
    """
    settings = load_settings(exchange=exchange, data_dir=data_dir, port_offset=port_offset)
    recordings = [*(recording or []), *(more_recordings or [])]
    if more_recordings and not recording:
        fail(f"error: unexpected argument {more_recordings[0]} (recordings: --recording FILE...)")
    if recordings and settings.exchange == "binance":
        fail("error: --recording is played by the simulated exchange; leave out --exchange binance")
    for file in recordings:
        if not file.is_file():
            fail(f"error: no such recording: {file}")
    parts = tuple(word.strip() for word in (only or "").split(",") if word.strip())
    config = StackConfig(settings, home_of(settings, recordings), parts, tuple(recordings))
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores it, so do we
            signal.signal(number, lambda *_: stop.set())
    code = 0
    try:
        with problems_shown():
            run_stack(config, stop)
    except typer.Exit as failed:
        code = failed.exit_code
    _leave(code)


def _leave(code: int) -> NoReturn:
    """Exit now: a download that was cut short would hold the interpreter until its thread ends."""
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    raise typer.Exit(code)


def run_stack(config: StackConfig, stop: Stop) -> None:
    """Run the stack until it is asked to `stop`. Raises TrackerError when it can't start or can't go on."""
    began = time.monotonic()
    names = selected(config)
    say = Console(len(max(names, key=len)), began)
    with only_stack(config.home):
        if left := end_leftovers(config.home):
            say.line(f"ended {left} processes that a killed stack had left")
        ports = settle_ports(config.settings, set(names) - set(external(config.settings)))
        say.line(f"starting {len(names)} parts, data and logs in {shown(config.home)}")
        for name, note in ports.notes.items():
            say.part(name, note)

        def jars(done: int, total: int) -> None:
            if stop.asked:
                raise PartFailed("stopped before all jars were there")
            say.jars(done, total)

        parts = build_parts(config, ports, jars)
        state = StackState.of_this_process(config.settings.exchange, time.time_ns() // 1_000_000)
        state.write(config.home)
        supervisor = Supervisor(parts, config.home, state=state, report=say.part, env=base_env(config, ports))
        supervisor.run(stop, on_ready=lambda: say.ready(config, ports.main.get("profile")), on_stop=say.stopping)
    say.line("stopped")


def shown(path: Path) -> str:
    """A path as short as it can be from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


class Console:
    """Short lines for people: time since the start, part, what happened."""

    def __init__(self, width: int, began: float) -> None:
        self._width, self._began = width, began
        self._lock = threading.Lock()  # jars are fetched in other threads
        self._jars: int | None = None

    def line(self, text: str) -> None:
        """A line about the stack."""
        self._print(f"{time.monotonic() - self._began:6.1f}s  {text}")

    def part(self, name: str, text: str) -> None:
        """A line about a part."""
        self.line(f"{name:<{self._width}}  {text}")

    def jars(self, done: int, total: int) -> None:
        """Progress of the first run's download."""
        if self._jars is None:
            self.part("kafka", f"fetching its {total} jars (45 MB, once for this user)")
        elif done // 10 > self._jars // 10 or done == total:
            self.part("kafka", f"{done} of {total} jars")
        self._jars = done

    def stopping(self) -> None:
        """Somebody asked to stop."""
        self.line("stopping")

    def ready(self, config: StackConfig, profile_port: int | None) -> None:
        """The line everybody waits for."""
        took = time.monotonic() - self._began
        self.line(f"all parts are up after {took:.1f} s; `tracker status` shows them, Ctrl-C stops them")
        if profile_port is None:
            self._print(f"ready: {', '.join(selected(config))}")
        else:
            self._print(f"ready: http://127.0.0.1:{profile_port}")

    def _print(self, text: str) -> None:
        """A console that is gone (a closed terminal, an ended `| tee`) must not end the stack, nor disturb its end."""
        with self._lock:
            try:
                print(text, flush=True)
            except OSError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
