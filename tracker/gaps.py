"""`tracker gaps`: the gap ledger, which names every trade that is not in the raw log."""

import json
from datetime import UTC, datetime
from typing import Annotated

import msgspec
import typer
from confluent_kafka import KafkaException

from flows.gap_ledger import LedgerRow, read_ledger
from infra.settings import Settings
from tracker.config import DataDir, Exchange, fail, load_settings, running_homes

KAFKA_TIMEOUT_S = 8.0

State = Annotated[str | None, typer.Option(help="Only rows in this state.", metavar="open|backfilled|lost")]


def gaps(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    *,
    state: State = None,
    exchange: Exchange = None,
    data_dir: DataDir = None,
) -> None:
    """List the gap ledger: ids that the exchange's streams did not bring, and what became of them."""
    if state not in (None, "open", "backfilled", "lost"):
        fail(f"there is no state {state!r}; the states are open, backfilled and lost")
    servers = _bootstrap_servers(load_settings(exchange=exchange, data_dir=data_dir))
    try:
        rows = read_ledger(servers, KAFKA_TIMEOUT_S)
    except KafkaException as error:
        fail(f"error: can't read the gap ledger from Kafka at {servers}: {error.args[0].str()}")
    rows = [row for row in rows if state in (None, row.state)]
    if as_json:
        typer.echo(json.dumps(msgspec.to_builtins(rows), indent=2, ensure_ascii=False))
    elif rows:
        _show(rows)
    else:
        typer.echo("no gaps" if state is None else f"no gaps that are {state}")


def _bootstrap_servers(settings: Settings) -> str:
    """Kafka of the running stack, which may not be on its usual port, else the one of the environment."""
    if settings.brokers or settings.kafka_brokers:
        return settings.bootstrap_servers
    found = [part.address for _, stack in running_homes(settings)[:1] for part in stack.parts if part.name == "kafka"]
    return found[0] if found else settings.bootstrap_servers


def _show(rows: list[LedgerRow]) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("symbol", "first missing a", "last missing a", "state", "from", "to", "reason"):
        table.add_column(heading, justify="right" if "missing" in heading else "left")
    for row in rows:
        ids = str(row.first_missing_a), str(row.last_missing_a)
        table.add_row(row.symbol, *ids, row.state, _time(row.after_ms), _time(row.before_ms), row.reason)
    Console(width=None if Console().is_terminal else 200).print(table)
    counts = {state: sum(row.state == state for row in rows) for state in ("open", "backfilled", "lost")}
    typer.echo(", ".join(f"{count} {state}" for state, count in counts.items()))


def _time(time_ms: int | None) -> str:
    if time_ms is None:
        return ""
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat(sep=" ", timespec="milliseconds")[:23]
