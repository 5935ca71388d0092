"""How `tracker backtest` shows results in a terminal."""

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flows.backtest.metrics import DEFINITIONS
from flows.backtest.params import as_text
from flows.backtest.result import Outcome
from flows.backtest.shown import rounded, shown
from flows.domain.times import iso

SHOWN = 10  # fills, refusals


def show(outcome: Outcome, manifest: dict[str, Any]) -> None:
    """One run: its figures with their definitions, some of its fills, and what was not filled."""
    figures, console = outcome.figures, _console()
    console.print(f"[bold]{escape(_title(outcome))}[/] on {manifest['topic']}, {figures['start']} to {figures['end']}")
    console.print(f"{len(figures['symbols'])} symbols: {escape(_some(figures['symbols']))}")
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading, justify in (("what", "left"), ("value", "right"), ("definition", "left")):
        table.add_column(heading, justify=justify, style="dim" if heading == "definition" else "")  # type: ignore[arg-type]
    for name in ("cash", "final_equity", *DEFINITIONS):
        table.add_row(name.replace("_", " "), shown(name, figures[name]), DEFINITIONS.get(name, ""))
    console.print(table)
    _show_fills(console, figures["fills"])
    _show_refusals(console, outcome)
    console.print(f"equity sha256 {figures['equity_sha256']}", soft_wrap=True)


def show_sweep(outcomes: Sequence[Outcome], swept: Sequence[str]) -> None:
    """All runs of a sweep, in their order."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    names = ("total_return", "max_drawdown", "sharpe", "volatility", "turnover", "fees", "exposure")
    for heading in (*swept, "final_equity", *names, "fills"):
        table.add_column(heading.replace("_", " "), justify="right")
    for outcome in outcomes:
        figures = outcome.figures
        values = [escape(as_text(outcome.values[name])) for name in swept]
        cells = [shown(name, figures[name]) for name in ("final_equity", *names)]
        table.add_row(*values, *cells, str(len(figures["fills"])))
    console = _console()
    console.print(table)
    hold = shown("buy_and_hold_return", outcomes[0].figures["buy_and_hold_return"])
    console.print(f"buy and hold: {hold}; best total return first; definitions are those of a single run")


def _title(outcome: Outcome) -> str:
    params = " ".join(f"{name}={as_text(value)}" for name, value in outcome.values.items())
    return f"{outcome.figures['strategy']} {params}".rstrip()


def _show_fills(console: Console, fills: Sequence[dict[str, Any]]) -> None:
    console.print(f"[bold]{len(fills)} fills[/]")
    if not fills:
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("time", "side", "symbol", "type", "quantity", "price", "fee"):
        table.add_column(heading, justify="right" if heading in {"quantity", "price", "fee"} else "left")
    for fill in fills[:SHOWN]:
        table.add_row(
            iso(fill["timestamp"]), fill["side"], escape(fill["symbol"]), fill["type"], fill["quantity"], fill["price"],
            f"{rounded(Decimal(fill['fee']), 8).normalize():f}",
        )  # fmt: skip
    console.print(table)
    if len(fills) > SHOWN:
        console.print(f"… and {len(fills) - SHOWN} more; --json has all of them")


def _show_refusals(console: Console, outcome: Outcome) -> None:
    if outcome.refusals:
        reasons = Counter(reason for _, _, reason in outcome.refusals)
        console.print("not filled: " + ", ".join(f"{count} × {reason}" for reason, count in reasons.most_common()))
        for timestamp, order, reason in outcome.refusals[:SHOWN]:
            console.print(f"  {iso(timestamp)} {escape(order)}: {reason}")
    if outcome.open_orders:
        console.print(f"{outcome.open_orders} orders still waited at the end")


def _some(symbols: Sequence[str]) -> str:
    return ", ".join(symbols[:SHOWN]) + (f" and {len(symbols) - SHOWN} more" if len(symbols) > SHOWN else "")


def _console() -> Console:
    return Console(highlight=False, width=None if Console().is_terminal else 160)
