"""`tracker watch` against a stack of the stores and services it needs; prices are published by the tests."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil
import pytest
from redis import Redis
from rich.console import Console
from stack_ports import free_offset

from infra.local.state import StackState
from tracker.portfolio_client import Lost
from tracker.portfolio_view import PortfolioView, line

TRACKER = [sys.executable, "-m", "tracker"]
HIDDEN = ("BROKERS", "KAFKA_BROKERS", "REDIS_ADDR", "POSTGRES_HOST", "CLICKHOUSE_ADDR", "HTTP_PORT", "SERVER_ADDR")


class Stack:
    """The environment of a running `tracker up --only profile,exchange`."""

    def __init__(self, directory: Path) -> None:
        self.offset = free_offset()
        self.directory, self.home = directory, directory / "data" / "simulated"
        self.env = {name: value for name, value in os.environ.items() if name not in HIDDEN}
        self.env |= {"DATA_DIR": str(directory / "data"), "PORT_OFFSET": str(self.offset), "COLUMNS": "150"}

    @contextmanager
    def run(self, *words: str, output: int | None = subprocess.PIPE, **env: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [*TRACKER, *words],
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.env | env,
            cwd=self.directory,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.terminate()

    def publish(self, symbol: str, close: str) -> None:
        fields = {"timestamp": int(time.time()) * 1000, "close": close, "revision": time.monotonic_ns()}
        with Redis(port=6379 + self.offset) as redis:
            redis.set(f"secondstat:last:{symbol}", json.dumps(fields))
            redis.publish(symbol, json.dumps(fields))


@pytest.fixture(scope="module")
def stack(store_data: Path) -> Iterator[Stack]:
    directory = store_data / "watch"
    directory.mkdir()
    stack = Stack(directory)
    with stack.run("up", "--only", "profile,exchange") as up:
        read_until(up.stdout, "ready: ")
        yield stack
        up.terminate()
        assert up.wait(20) == 0


def read_until(output: IO[str] | None, wanted: str) -> str:
    assert output
    lines = []
    for text in output:
        lines.append(text)
        if wanted in text:
            return text
    raise AssertionError("".join(lines))


def test_demo_makes_a_user_and_prints_a_line_a_push(stack: Stack) -> None:
    with stack.run("watch", "--demo") as watch:
        first = read_until(watch.stdout, "total")
        assert re.search(r"#1  total \S+ USDT  btcusdt \S+  ethusdt \S+  solusdt \S+  bnbusdt \S+  xrpusdt \S+", first)
        stack.publish("btcusdt", "100000.50000000")
        assert "total 50000.25 USDT" in read_until(watch.stdout, "btcusdt 100000.5")
        watch.send_signal(signal.SIGINT)
        assert watch.wait(10) == 0
    password = stack.home / "demo-password.secret"
    assert password.stat().st_mode & 0o777 == 0o600
    assert len(password.read_text()) > 40


def test_the_demo_user_is_used_again_and_by_name(stack: Stack) -> None:
    with stack.run("watch", "--demo") as watch:
        read_until(watch.stdout, "total")
    password = (stack.home / "demo-password.secret").read_text()
    with stack.run("watch", "--user", "demo", TRACKER_PASSWORD=password) as watch:
        assert "xrpusdt" in read_until(watch.stdout, "total")


def test_a_killed_service_is_found_again(stack: Stack) -> None:
    with stack.run("watch", "--demo") as watch:
        read_until(watch.stdout, "total")
        state = StackState.read(stack.home)
        assert state
        psutil.Process(next(part.pid for part in state.parts if part.name == "profile")).kill()
        read_until(watch.stdout, "reconnecting")
        read_until(watch.stdout, "#1  total")


def test_a_terminal_shows_a_table(stack: Stack) -> None:
    ours, theirs = pty.openpty()
    with stack.run("watch", "--demo", output=theirs, TERM="xterm") as watch:
        os.close(theirs)
        screen = ""
        deadline = time.monotonic() + 30
        readable = select.poll()  # select() knows no descriptor above 1023
        readable.register(ours, select.POLLIN)
        while not all(word in screen for word in ("portfolio of demo", "quantity", "btcusdt", "share", "connected")):
            assert time.monotonic() < deadline, screen
            if readable.poll(1000):
                screen += os.read(ours, 65536).decode(errors="replace")
        watch.send_signal(signal.SIGINT)
        with suppress(OSError):
            while os.read(ours, 65536):
                pass
        assert watch.wait(10) == 0
    os.close(ours)


def wrong(stack: Stack, *words: str, **env: str) -> str:
    with stack.run("watch", *words, **env) as watch:
        said, _ = watch.communicate(timeout=30)
        assert watch.returncode == 1
    assert "Traceback" not in said
    return str(said)


def test_what_can_go_wrong_is_said(stack: Stack, tmp_path: Path) -> None:
    assert "name or password" in wrong(stack, "--user", "demo", TRACKER_PASSWORD="wrong password")
    assert "--demo or --user" in wrong(stack)
    assert "--demo or --user" in wrong(stack, "--demo", "--user", "somebody")
    nowhere = wrong(stack, "--demo", DATA_DIR=str(tmp_path), PORT_OFFSET="1")
    assert "make run" in nowhere
    assert "http://127.0.0.1:8081" in nowhere


def push(price: str, total: str, **fields: object) -> dict[str, object]:
    coin = {"Symbol": "btcusdt", "Quantity": "1.5", "Price": price, "Total": total}
    bare = {"Symbol": "ethusdt", "Quantity": "2", "Price": None, "Total": None}
    known = {"UserID": "x", "UserName": "demo", "TotalValue": total, "Coins": [coin, bare], "Sequence": 7, "Stale": []}
    return {**known, "AsOf": int(time.time() * 1000), **fields}


def drawn(view: PortfolioView) -> str:
    console = Console(width=120, force_terminal=True, color_system="standard", legacy_windows=False)
    with console.capture() as capture:
        console.print(view)
    return capture.get()


def test_the_view_tells_directions_shares_and_the_connection() -> None:
    view = PortfolioView("http://127.0.0.1:8080")
    assert "connecting" in drawn(view)
    view.show(push("10", "15"))
    assert "100.0 %" in drawn(view)
    view.show(push("11.5", "17.25"))
    assert re.search(r"\x1b\[32m *11\.5", drawn(view))
    view.show(push("11", "16.5", Stale=["btcusdt"]))
    assert re.search(r"\x1b\[31m *11\x1b", drawn(view))
    assert "stale" in drawn(view)
    assert "push 7" in drawn(view)
    view.show(Lost("the service is away", time.monotonic() + 3))
    assert re.search(r"reconnecting in [23] s: the service is away", drawn(view))


def test_a_line_has_the_total_and_every_price() -> None:
    text = line(push("10", "15", AsOf=0))
    assert "#7  total 15 USDT  btcusdt 10  ethusdt –  no trades yet" in text
