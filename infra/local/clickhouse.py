"""The embedded ClickHouse: the chDB engine behind `infra.local.clickhouse_server`, in its own process."""

import sys
import urllib.error
import urllib.request
from pathlib import Path

from infra.local.part import LOOPBACK, Part


def answers(host: str, port: int) -> str | None:
    """None when the server answers /ping, else the reason."""
    try:
        with urllib.request.urlopen(f"http://{host}:{port}/ping", timeout=2) as response:
            return None if response.read() == b"Ok.\n" else "not ClickHouse"
    except (urllib.error.URLError, OSError) as error:
        return f"{host}:{port}: {error}"


def clickhouse(data: Path, port: int, password: str = "postgres") -> Part:  # noqa: S107 - the documented default
    """A server that speaks ClickHouse's HTTP interface on 127.0.0.1:`port`, with its tables in `data`."""
    return Part(
        "clickhouse",
        [sys.executable, "-m", "infra.local.clickhouse_server", "--data", str(data), "--port", str(port)],
        ready=lambda: answers(LOOPBACK, port),
        address=f"{LOOPBACK}:{port}",
        env={"CLICKHOUSE_PASSWORD": password},
        prepare=lambda: data.mkdir(parents=True, exist_ok=True),
    )
