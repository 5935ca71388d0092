"""The whole stack as a user starts it, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from stack_ports import free_offset

ROOT = Path(__file__).parents[2]
TRACKER = Path(sys.executable).with_name("tracker")


class Stack:
    """`tracker up` with a data directory and ports of its own."""

    def __init__(self, data_dir, *arguments, offset=None):
        self.data_dir, self.arguments = data_dir, arguments
        self.offset = free_offset() if offset is None else offset
        clean = {
            k: v for k, v in os.environ.items() if k not in ("BROKERS", "REDIS_ADDR", "POSTGRES_HOST", "JWT_SECRET")
        }
        self.environment = {**clean, "PORT_OFFSET": str(self.offset), "DATA_DIR": str(data_dir)}
        self.lines = []
        self.process = None

    @property
    def url(self):
        return f"http://127.0.0.1:{8080 + self.offset}"

    def port(self, usual):
        return usual + self.offset

    def start(self, seconds=180):
        """Start it; returns the seconds until its `ready:` line."""
        began = time.monotonic()
        self.process = subprocess.Popen(
            [TRACKER, "up", *self.arguments], cwd=ROOT, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        ready = threading.Event()
        threading.Thread(target=self._read, args=(self.process.stdout, ready), daemon=True).start()
        while not ready.wait(0.1):
            assert self.process.poll() is None, "\n".join(self.lines)
            assert time.monotonic() < began + seconds, "\n".join(self.lines)
        return time.monotonic() - began

    def _read(self, output, ready):
        with output:
            for line in output:
                self.lines.append(line.rstrip())
                if line.startswith("ready: "):
                    ready.set()

    def stop(self, with_signal=signal.SIGTERM):
        """The exit code, and the seconds it took."""
        began = time.monotonic()
        self.process.send_signal(with_signal)
        return self.process.wait(30), time.monotonic() - began

    def kill(self):
        """End whatever is left of it, by the supervisor's own pid."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def tracker(self, *arguments):
        return subprocess.run(
            [TRACKER, *arguments],
            cwd=ROOT,
            env=self.environment,
            text=True,
            capture_output=True,
            timeout=60,
            check=False,
        )

    def status(self):
        """`tracker status --json` as {part name: row}, with the whole under ''."""
        whole = json.loads(self.tracker("status", "--json").stdout)
        return {"": whole, **{row["name"]: row for row in whole["parts"]}}


def poll_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"{what}: not within {seconds} s")
