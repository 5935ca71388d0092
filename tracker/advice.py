"""What to do about a part that is not well: one sentence, with the command to go on with."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from infra.local.stack import NEEDS
from infra.local.state import PartState

SILENT_S = 20.0  # the exchange has events many times a second
FAR_BEHIND = 50_000  # records; seconds of work
DISK_LOW_BYTES = 2_000_000_000
VARIABLES = {
    "kafka": "BROKERS",
    "redis": "REDIS_ADDR",
    "clickhouse": "CLICKHOUSE_ADDR",
    "postgres-auth": "POSTGRES_HOST",
    "postgres-profile": "POSTGRES_HOST",
}


def for_down(part: PartState, pid: int | None, detail: str) -> str:
    """Advice for a part that does not do its work; `pid` is its process, if it has one, `detail` the reason."""
    log = f"`tracker logs {part.name}`"
    if part.created_s is None and part.state == "up":
        return f"{detail}; not started here: check the server that {VARIABLES.get(part.name, 'the environment')} names"
    if part.state == "waiting":
        return f"not started yet: waits for {' and '.join(NEEDS.get(part.name, ())) or 'other parts'} to be up"
    if part.state in ("preparing", "starting"):
        return f"starting; if that takes more than a minute, see {log}"
    if part.state == "died":
        return f"died ({part.note}) and is started again; see {log}"
    if pid is None:
        return f"{detail}; see {log}, then start the stack again"
    return f"{detail}; see {log}; if it hangs, `kill -9 {pid}` has it started anew"


def for_consequence(detail: str, causes: Sequence[str]) -> str:
    """Advice for a part that would do its work if the parts it needs, `causes`, did theirs."""
    return f"{detail}; it needs {' and '.join(causes)}: mend that first"


def for_silence(name: str, age_s: float | None) -> str:
    """Advice for ingest: whether the exchange's events come in."""
    if age_s is None:
        return f"no event has come from the exchange yet; see `tracker logs {name}`"
    if age_s > SILENT_S:
        return f"no event from the exchange for {age_s:.0f} s; see `tracker logs {name}`"
    return ""


def for_lag(name: str, lag: int | None) -> str:
    """Advice for a consumer of Kafka by its lag in records."""
    if lag is not None and lag > FAR_BEHIND:
        return f"{lag:,} records behind; it catches up by itself, if the lag shrinks; else see `tracker logs {name}`"
    return ""


def for_disk(home: Path) -> str:
    """Advice when the file system of the data directory is nearly full."""
    free = shutil.disk_usage(home).free
    if free >= DISK_LOW_BYTES:
        return ""
    return f"only {free / 1e9:.1f} GB are free for {home}: lower RAW_RETENTION_BYTES, make room, or `tracker reset`"
