"""Schemathesis against a running service: every check, every phase, from its OpenAPI document.

The short form is part of the suite; `make test-api` (API_TESTS=long) has many more examples, and new ones each time.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local.part import free_port
from infra.probes import probe

LONG = os.environ.get("API_TESTS") == "long"
ROOT = Path(__file__).parents[2]
CONFIG = Path(__file__).with_name("schemathesis.toml")


@contextmanager
def served(module: str, environment: dict[str, str]) -> Iterator[str]:
    """The service in a process of its own; gives its URL when it is ready."""
    port = free_port()
    child = subprocess.Popen(
        [sys.executable, "-m", module], cwd=ROOT, env={**os.environ, **environment, "HTTP_PORT": str(port)}
    )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 60
    try:
        while probe(f"{url}/readyz") is not None:
            assert child.poll() is None, f"{module} has ended"
            assert time.monotonic() < deadline, url
            time.sleep(0.05)
        yield url
    finally:
        child.terminate()
        child.wait(20)


def run(location: str, *options: str, url: str = "", examples: int = 8, seconds: int = 100) -> None:
    """Fails with what Schemathesis says; `location` is the document's URL or file."""
    # With one worker, as by default: in threads Python's parser fails at times ("AST constructor recursion depth mismatch").
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", location]
    command += ["--checks", "all", "--phases", "examples,coverage,fuzzing,stateful", "--no-color"]
    command += ["--max-examples", str(examples * 40 if LONG else examples), "--no-shrink", *options]
    command += ["--url", url] if url else []
    command += [] if LONG else ["--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=3000 if LONG else seconds, check=False)
    assert done.returncode == 0, done.stdout[-15_000:] + done.stderr[-2_000:]
    print(done.stdout[-3000:])
