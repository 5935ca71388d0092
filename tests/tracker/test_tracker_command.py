"""The command `tracker` as people run it: a process, its output, its exit code."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from stack_ports import free_offset

from infra.local.kafka_jars import cache_dir
from infra.local.state import StackState, find_process
from infra.local.supervisor import Limits

TRACKER = [sys.executable, "-m", "tracker"]
STORES = "redis,postgres-auth,clickhouse,kafka"


def eventually(condition: Callable[[], Any], within_s: float = 20) -> Any:
    deadline = time.monotonic() + within_s
    pause = threading.Event()
    while not (result := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        pause.wait(0.05)
    return result


class Tracker:
    """Runs `tracker` with a data directory and a port range of its own."""

    def __init__(self, directory: Path, offset: int) -> None:
        self.directory, self.offset = directory, offset
        self.home = directory / "data" / "simulated"
        hidden = {*STORE_VARIABLES, "HTTP_PORT", "GRPC_PORT", "SERVER_ADDR"}
        self.env = {name: value for name, value in os.environ.items() if name not in hidden}
        self.env |= {"DATA_DIR": str(directory / "data"), "PORT_OFFSET": str(offset)}
        self._stacks: list[subprocess.Popen[str]] = []

    def __call__(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*TRACKER, *words],
            capture_output=True,
            text=True,
            env=self.env | env,
            cwd=self.directory,
            timeout=60,
            check=False,
        )

    def up(self, *words: str, **env: str) -> tuple[subprocess.Popen[str], list[str]]:
        """A stack that is ready, and the lines it wrote until then."""
        process = subprocess.Popen(
            [*TRACKER, "up", *words], stdout=subprocess.PIPE, text=True, env=self.env | env, cwd=self.directory
        )
        self._stacks.append(process)
        assert process.stdout
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.startswith("ready: "):
                return process, lines
        raise AssertionError("\n".join(lines))

    def status(self) -> dict[str, dict[str, Any]]:
        return {part["name"]: part for part in json.loads(self("status", "--json").stdout)["parts"]}

    def end(self) -> None:
        for process in self._stacks:
            if process.poll() is None:
                process.terminate()
            process.wait(20)
            if process.stdout:
                process.stdout.close()


STORE_VARIABLES = ("BROKERS", "KAFKA_BROKERS", "REDIS_ADDR", "POSTGRES_HOST", "CLICKHOUSE_ADDR")


@pytest.fixture
def tracker(store_data: Path, request: pytest.FixtureRequest) -> Iterator[Tracker]:
    directory = store_data / request.node.name
    directory.mkdir()
    runner = Tracker(directory, free_offset())
    yield runner
    runner.end()


def processes_of(home: Path) -> list[psutil.Process]:
    state = StackState.read(home)
    return [psutil.Process(part.pid) for part in state.parts if part.pid] if state else []


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; an orphan that is dead may wait for long until it is reaped."""
    return find_process(process.pid, process.create_time()) is not None if process.is_running() else False


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
def test_up_is_ready_and_stops_cleanly(tracker: Tracker, sign: signal.Signals) -> None:
    process, lines = tracker.up("--only", "redis,exchange")
    assert lines[-1] == "ready: redis, exchange"
    children = processes_of(tracker.home)
    assert len(children) == 2
    process.send_signal(sign)
    process.send_signal(sign)  # an impatient second one changes nothing
    assert process.wait(15) == 0
    assert not any(is_alive(child) for child in children)


def test_a_console_that_is_gone_changes_nothing(tracker: Tracker) -> None:
    """`tracker up | tee log`: Ctrl-C ends tee as well, so the last lines have no reader."""
    process, _ = tracker.up("--only", "redis,exchange")
    children = processes_of(tracker.home)
    assert process.stdout
    process.stdout.close()
    children[0].kill()
    eventually(lambda: tracker.status()["redis"]["restarts"] == 1 and tracker.status()["redis"]["up"])
    children = processes_of(tracker.home)
    process.send_signal(signal.SIGINT)
    assert process.wait(15) == 0
    assert not any(is_alive(child) for child in children)
    assert {part.state for part in StackState.read(tracker.home).parts} == {"stopped"}


def test_nohup_is_heeded(tracker: Tracker) -> None:
    with subprocess.Popen(
        ["nohup", *TRACKER, "up", "--only", "redis"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=tracker.env, cwd=tracker.directory,
    ) as process:  # fmt: skip
        assert process.stdout
        assert any(line.startswith("ready: ") for line in process.stdout)
        process.send_signal(signal.SIGHUP)
        assert tracker.status()["redis"]["up"]
        process.terminate()
        assert process.wait(15) == 0


def test_stop_does_not_wait_for_a_download(tracker: Tracker) -> None:
    """Another stack of this user fetches Kafka's jars, for as long as it likes."""
    cache = tracker.directory / "cache"
    lock_file = cache / "crypto-asset-tracker" / cache_dir().with_suffix(".lock").name
    lock_file.parent.mkdir(parents=True)
    with lock_file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with subprocess.Popen(
            [*TRACKER, "up", "--only", "kafka"],
            stdout=subprocess.PIPE, text=True, env=tracker.env | {"XDG_CACHE_HOME": str(cache)}, cwd=tracker.directory,
        ) as process:  # fmt: skip
            assert process.stdout
            assert any("fetching its" in line for line in process.stdout)
            began = time.monotonic()
            process.terminate()
            assert process.wait(15) == 0
            assert time.monotonic() - began < Limits.stop_within_s - 2


def test_a_data_directory_with_an_odd_name(tracker: Tracker) -> None:
    data = tracker.directory / "my data ä?x"
    _, lines = tracker.up("--only", STORES, DATA_DIR=str(data), LC_ALL="C")
    assert not any("died" in line for line in lines)
    assert (data / "simulated" / "kafka" / "log" / "meta.properties").exists()
    assert (data / "simulated" / "clickhouse" / "engine").is_dir()
    assert [entry.name for entry in tracker.directory.iterdir()] == [data.name]


def test_a_second_stack_on_the_same_data_is_refused(tracker: Tracker) -> None:
    process, _ = tracker.up("--only", "redis")
    second = tracker("up", "--only", "redis")
    assert second.returncode == 1
    assert f"already running in {tracker.home} (pid {process.pid})" in second.stderr


def test_starts_again_after_kill_9_of_the_supervisor(tracker: Tracker) -> None:
    process, _ = tracker.up("--only", "redis,exchange")
    children = processes_of(tracker.home)
    process.kill()
    process.wait()
    tracker.up("--only", "redis,exchange")
    assert not any(is_alive(child) for child in children)
    assert {part["state"] for part in tracker.status().values()} == {"up"}


def test_a_busy_store_port_is_told_twice(tracker: Tracker) -> None:
    port = 6379 + tracker.offset
    with socket.create_server(("127.0.0.1", port)):
        _, lines = tracker.up("--only", "redis")
        row = tracker.status()["redis"]
    note = f"port {port} is in use, took {row['address'].rpartition(':')[2]}"
    assert any(note in line for line in lines)
    assert row["note"] == note


def test_a_busy_service_port_stops_it_before_anything_starts(tracker: Tracker) -> None:
    port = 9443 + tracker.offset
    with socket.create_server(("127.0.0.1", port)):
        result = tracker("up", "--only", "exchange")
    assert result.returncode == 1
    assert f"port {port}, which exchange needs, is in use" in result.stderr
    assert "PORT_OFFSET" in result.stderr
    assert not (tracker.home / "logs").exists()


def test_status_is_true(tracker: Tracker) -> None:
    supervisor, _ = tracker.up("--only", STORES)
    rows = tracker.status()
    assert set(rows) == set(STORES.split(","))
    assert {row["state"] for row in rows.values()} == {"up"}
    assert tracker("status").returncode == 0
    supervisor.send_signal(signal.SIGSTOP)  # so that nothing comes back while we look
    try:
        for name, row in rows.items():
            psutil.Process(row["pid"]).kill()
            found = tracker.status()
            assert found[name]["state"] == "down"
            assert f"tracker logs {name}" in found[name]["hint"]
        text = tracker("status")
        assert text.returncode == 1
        assert text.stdout.count("down") == len(rows)
    finally:
        supervisor.send_signal(signal.SIGCONT)
    healed = eventually(lambda: all(row["state"] == "up" for row in tracker.status().values()), 30)
    assert healed
    assert {row["restarts"] for row in tracker.status().values()} == {1}


def test_a_hanging_part_is_down(tracker: Tracker) -> None:
    tracker.up("--only", "redis")
    server = psutil.Process(tracker.status()["redis"]["pid"])
    server.suspend()
    try:
        assert tracker.status()["redis"]["state"] == "down"
    finally:
        server.resume()
    assert tracker.status()["redis"]["state"] == "up"


def test_status_without_a_stack(tracker: Tracker) -> None:
    result = tracker("status")
    assert result.returncode == 1
    assert "no stack is running" in result.stderr
    assert json.loads(tracker("status", "--json").stdout)["running"] is False


def test_status_tells_why_the_last_stack_ended(tracker: Tracker) -> None:
    (tracker.home).mkdir(parents=True)
    (tracker.home / "redis").write_text("no directory")
    assert tracker("up", "--only", "redis").returncode == 1
    result = tracker("status")
    assert result.returncode == 1
    assert f"the last one, in {tracker.home}, ended because redis could not be prepared" in result.stderr
    assert "no stack is running" in tracker("status", "--exchange", "recording").stderr
    assert "ended because" not in tracker("status", "--exchange", "recording").stderr


def test_logs(tracker: Tracker) -> None:
    nothing = tracker("logs")
    assert (nothing.returncode, "there are no logs in" in nothing.stderr) == (1, True)
    tracker.up("--only", "redis,exchange")
    assert "Ready to accept connections" in tracker("logs", "redis").stdout
    assert len(tracker("logs", "redis", "-n", "1").stdout.splitlines()) == 1
    unknown = tracker("logs", "rediss")
    assert unknown.returncode == 1
    assert "there is no part 'rediss'" in unknown.stderr
    missing = tracker("logs", "redis", "kafka")
    assert missing.returncode == 1
    assert "kafka has no log in" in missing.stderr
    other = tracker("logs", "redis", "--exchange", "binance")  # not that of the stack that runs
    assert other.returncode == 1
    assert str(tracker.home.with_name("binance")) in other.stderr


def test_logs_of_all_parts_name_the_part_before_each_line(tracker: Tracker) -> None:
    tracker.up("--only", "redis,exchange")
    for name in ("redis", "exchange"):
        with (tracker.home / "logs" / f"{name}.log").open("a") as file:
            file.write(f"a word of {name}\n")
    shown = tracker("logs", "-n", "1").stdout.splitlines()
    assert shown == ["redis            | a word of redis", "exchange         | a word of exchange"]
    assert tracker("logs", "valkey", "exchange", "-n", "1").stdout.splitlines()[0] == "redis    | a word of redis"


def test_logs_of_the_stack_that_ran_last(tracker: Tracker) -> None:
    recording = tracker.directory / "none.jsonl"
    recording.write_text("")
    process, _ = tracker.up("--only", "redis", "--recording", str(recording))
    process.terminate()
    process.wait(15)
    assert "Ready to accept connections" in tracker("logs", "redis").stdout
    assert "Ready to accept connections" in tracker("logs", "redis", "--exchange", "recording").stdout
    assert tracker("logs", "redis", "--exchange", "simulated").returncode == 1


def test_following_a_log(tracker: Tracker) -> None:
    tracker.up("--only", "redis")
    log = tracker.home / "logs" / "redis.log"
    with subprocess.Popen(
        [*TRACKER, "logs", "redis", "-f", "-n", "1"], stdout=subprocess.PIPE, text=True, env=tracker.env
    ) as follower:
        assert follower.stdout
        follower.stdout.readline()
        with log.open("a") as file:
            file.write("something new\n")
        assert follower.stdout.readline() == "something new\n"
        log.rename(log.with_suffix(".log.1"))  # as the next start of the stack does, before the part writes again
        log.write_text("of the next run, and longer than all that there was before\n" * 100)
        assert follower.stdout.readline() == "of the next run, and longer than all that there was before\n"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 0


def test_following_all_logs(tracker: Tracker) -> None:
    tracker.up("--only", "redis,exchange")
    with subprocess.Popen(
        [*TRACKER, "logs", "-f", "-n", "1"], stdout=subprocess.PIPE, text=True, env=tracker.env
    ) as follower:
        assert follower.stdout
        assert follower.stdout.readline().startswith("redis            | ")
        log = tracker.home / "logs" / "ingest.log"  # a part that is first started later
        log.write_text("half a ")
        seen = iter(follower.stdout.readline, "")
        for text in ("once", "twice"):  # when it has shown the second, it has looked at all files
            with (tracker.home / "logs" / "exchange.log").open("a") as file:
                file.write(f"{text}\n")
            assert next(line for line in seen if line.endswith(f"{text}\n")) == f"exchange         | {text}\n"
        with log.open("a") as file:
            file.write("line\n")
        assert next(line for line in seen if line.startswith("ingest")) == "ingest           | half a line\n"
        follower.send_signal(signal.SIGINT)
        assert follower.wait(10) == 0


def test_reset_asks_first(tracker: Tracker) -> None:
    process, _ = tracker.up("--only", "redis")
    refused = tracker("reset", "--yes")
    assert refused.returncode == 1
    assert f"stop it first (Ctrl-C, or `kill {process.pid}`)" in refused.stderr
    assert tracker.home.exists()
    process.terminate()
    process.wait(15)
    assert tracker("reset").returncode == 1  # nobody says yes
    assert tracker.home.exists()
    assert tracker("reset", "--yes").returncode == 0
    assert not tracker.home.exists()
    assert "nothing to delete" in tracker("reset", "--yes").stdout


def test_reset_of_a_recordings_data(tracker: Tracker) -> None:
    recording = tracker.directory / "none.jsonl"
    recording.write_text("")
    for words in ([], ["--recording", str(recording)]):
        process, _ = tracker.up("--only", "redis", *words)
        process.terminate()
        process.wait(15)
    played = tracker.home.with_name("recording")
    assert f"kept {played}; `tracker reset --exchange recording` deletes it" in tracker("reset", "-y").stdout
    assert (tracker.home.exists(), played.exists()) == (False, True)
    assert tracker("reset", "--exchange", "recording", "--yes").stdout == f"deleted {played}\n"
    assert not played.exists()


def test_reset_after_a_supervisor_was_killed(tracker: Tracker) -> None:
    process, _ = tracker.up("--only", "redis,exchange")
    children = processes_of(tracker.home)
    children[0].suspend()  # so that the kernel's signal does not end it
    process.kill()
    process.wait(15)
    assert tracker("reset", "--yes").returncode == 0
    assert not any(is_alive(child) for child in children)
    assert not tracker.home.exists()


def test_a_dotenv_file_is_read_and_the_environment_wins(tracker: Tracker) -> None:
    (tracker.directory / ".env").write_text(
        f"REDIS_ADDR=127.0.0.1:1\nPORT_OFFSET=1\nHTTP_PORT={8080 + tracker.offset}\n"
    )
    with socket.create_server(("127.0.0.1", 9443 + tracker.offset)):
        result = tracker("up", "--only", "exchange")
    assert f"port {9443 + tracker.offset}" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["up", "--only", "nonsense"], "there is no part 'nonsense'"),
        (["up", "--exchange", "kraken"], "EXCHANGE"),
        (["up", "--recording", "missing.jsonl"], "no such recording: missing.jsonl"),
        (["up", "stray"], "unexpected argument stray"),
        (["bench", "nonsense"], "there is no benchmark 'nonsense'"),
    ],
)
def test_mistakes_are_explained(tracker: Tracker, words: list[str], message: str) -> None:
    result = tracker(*words)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"HTTP_PORT": "70000"}, "HTTP_PORT: Input should be less than or equal to 65535"),
        ({"SERVER_ADDR": ":99999"}, "error: not an address: ':99999'"),
        ({"JWT_SECRET": "short"}, "JWT_SECRET must have at least 32 bytes"),
        ({"JWT_SECRET_FILE": "/nowhere"}, "error: JWT_SECRET_FILE: "),
        ({"DATA_DIR": "/dev/null"}, "error: /dev/null/simulated: Not a directory"),
        ({"BIND_HOST": "192.0.2.1"}, "profile can't listen on 192.0.2.1:"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_wrong_environment_is_explained(tracker: Tracker, variables: dict[str, str], message: str) -> None:
    result = tracker("up", "--only", "profile", **variables)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_version_and_help(tracker: Tracker) -> None:
    assert tracker("--version").stdout.startswith("tracker 0.")
    listed = tracker("--help").stdout
    assert all(name in listed for name in ("up", "status", "logs", "reset", "bench"))
