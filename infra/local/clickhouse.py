"""The embedded ClickHouse: the chDB engine behind `infra.local.clickhouse_server`, in its own process."""

import sys
from pathlib import Path

from infra.local.part import LOOPBACK, Part


def clickhouse(data: Path, port: int, password: str = "postgres") -> Part:  # noqa: S107 - the documented default
    """A server that speaks ClickHouse's HTTP interface on 127.0.0.1:`port`, with its tables in `data`."""
    return Part(
        "clickhouse",
        [sys.executable, "-m", "infra.local.clickhouse_server", "--data", str(data), "--port", str(port)],
        probe=f"http://{LOOPBACK}:{port}/ping",
        address=f"{LOOPBACK}:{port}",
        env={"CLICKHOUSE_PASSWORD": password},
        prepare=lambda: data.mkdir(parents=True, exist_ok=True),
    )
