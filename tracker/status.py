"""`tracker status`: every part of the running stack, asked now."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from infra.local.state import StackState
from infra.settings import Settings
from tracker.advice import for_disk
from tracker.config import DataDir, Kept, fail, homes, load_home, running_homes
from tracker.vitals import StackVitals, examine


def status(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    *,
    exchange: Kept = None,
    data_dir: DataDir = None,
) -> None:
    """Show every part: up or down, lag, age of the last event, subscriptions; exit 1 unless all are up."""
    settings, _ = load_home(exchange, data_dir)
    running = running_homes(settings)
    if exchange is not None:
        running = [found for found in running if found[0].name == exchange]
    if not running:
        _nothing_runs(settings, exchange, as_json)
    home, state = running[0]
    vitals = examine(state)
    if as_json:
        typer.echo(json.dumps(_as_json(home, state, vitals), indent=2))
    else:
        _show(home, state, vitals)
        for other, _ in running[1:]:
            typer.echo(f"another stack runs in {other}")
    if not all(part.up for part in vitals.parts):
        raise typer.Exit(1)


def _nothing_runs(settings: Settings, exchange: str | None, as_json: bool) -> NoReturn:
    text = f"no stack is running in {settings.data_dir.absolute()}; start one with `make run` or `tracker up`"
    last = next((found for found in homes(settings) if exchange in (None, found[0].name)), None)
    if last and (why := next((part.note for part in last[1].parts if part.state == "failed"), None)):
        text += f"\nthe last one, in {last[0]}, ended because {why}"
    if as_json:
        typer.echo(json.dumps({"running": False, "detail": text, "parts": []}, indent=2))
        raise typer.Exit(1)
    fail(text)


def _as_json(home: Path, state: StackState, vitals: StackVitals) -> dict[str, Any]:
    return {
        "running": True,
        "ok": all(part.up for part in vitals.parts),
        "exchange": state.exchange,
        "home": str(home),
        "pid": state.pid,
        "parts": [{**asdict(part), "state": "up" if part.up else "down"} for part in vitals.parts],
        "subscriptions": vitals.subscriptions,
        "hint": for_disk(home),
    }


def _show(home: Path, state: StackState, vitals: StackVitals) -> None:
    from rich.console import Console  # noqa: PLC0415 - not needed for --json
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("part", "state", "address", "pid", "uptime", "memory", "restarts", "lag", "last event", ""):
        table.add_column(heading, justify="right" if heading in {"pid", "memory", "restarts", "lag"} else "left")
    for part in vitals.parts:
        table.add_row(
            part.name,
            "[green]up[/]" if part.up else "[red]down[/]",
            part.address,
            str(part.pid or ""),
            _age(part.uptime_s),
            "" if part.memory_mb is None else f"{part.memory_mb:.0f} MB",
            str(part.restarts or ""),
            "" if part.lag is None else str(part.lag),
            "" if part.last_event_age_s is None else f"{part.last_event_age_s:.1f} s ago",
            part.note,
        )
    console = Console(width=None if Console().is_terminal else 200)
    console.print(f"{state.exchange} exchange, data in {home}, up for {_age(time.time() - state.started_ms / 1000)}")
    console.print(table)
    for part in vitals.parts:
        if part.hint:
            console.print(f"{part.name}: {part.hint}", markup=False, highlight=False, soft_wrap=True)
    if any(part.name == "aggregator" for part in vitals.parts):
        console.print(f"subscriptions: {_subscriptions(vitals.subscriptions)}")
    if hint := for_disk(home):
        console.print(hint)


def _subscriptions(found: Any) -> str:
    return "unknown (the aggregator does not answer)" if found is None else json.dumps(found)


def _age(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
