"""The report: one HTML file that needs nothing else, by our own template and charts."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flows.backtest.charts import Line, Mark, chart
from flows.backtest.curves import Curves
from flows.backtest.metrics import DEFINITIONS
from flows.backtest.params import as_text
from flows.backtest.result import Outcome
from flows.backtest.shown import shown
from flows.domain.times import iso

WIDTHS = (1000, 380)  # for screens and for phones; CSS shows one
MOST_PRICES = 20  # charts
MOST_ROWS = 1000  # of a table


def write_report(file: Path, outcome: Outcome, manifest: Mapping[str, Any], curves: Curves) -> None:
    """Write the file. Raises OSError."""
    file.write_text(render(outcome, manifest, curves), encoding="utf-8")


def render(outcome: Outcome, manifest: Mapping[str, Any], curves: Curves) -> str:
    """The page."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    figures = outcome.figures
    fills: Sequence[Mapping[str, Any]] = figures["fills"]
    priced = _most_traded(fills)
    return environment.get_template("report.html").render(
        figures=figures,
        params={name: as_text(value) for name, value in outcome.values.items()},
        rows=[(name.replace("_", " "), shown(name, figures[name]), figures[name], text)
              for name, text in {"final_equity": "cash and what is held, at the last closes", **DEFINITIONS}.items()],
        equity=_drawn("Equity by time", [Line("hold", curves.hold.points), Line("equity", curves.equity.points)]),
        drawdown=_drawn("Drawdown by time", [Line("fall", curves.drawdown.points, area=True)], height=160, unit=" %"),
        prices=[(symbol, _price(symbol, fills, curves)) for symbol in priced[:MOST_PRICES]],
        unpriced=[symbol for symbol in figures["symbols"] if symbol not in priced[:MOST_PRICES]],
        fills=[{**fill, "time": iso(fill["timestamp"])} for fill in fills[:MOST_ROWS]],
        refusals=[(iso(time), order, reason) for time, order, reason in outcome.refusals[:MOST_ROWS]],
        refused=len(outcome.refusals),
        open_orders=outcome.open_orders,
        manifest=json.dumps(manifest, indent=2),
        topic=manifest["topic"],
    )  # fmt: skip


def _most_traded(fills: Sequence[Mapping[str, Any]]) -> list[str]:
    counts: dict[str, int] = defaultdict(int)
    for fill in fills:
        counts[fill["symbol"]] += 1
    return sorted(counts, key=lambda symbol: (-counts[symbol], symbol))


def _price(symbol: str, fills: Sequence[Mapping[str, Any]], curves: Curves) -> Markup:
    series = curves.prices[symbol]
    marks = _marks([fill for fill in fills if fill["symbol"] == symbol], series.width_ms)
    return _drawn(f"Price of {symbol} with fills", [Line("price", series.points, band=True)], marks)


def _marks(fills: Sequence[Mapping[str, Any]], width_ms: int) -> list[Mark]:
    """A triangle a fill; those of one side that would lie on each other are one."""
    near: dict[tuple[int, str], list[Mapping[str, Any]]] = defaultdict(list)
    for fill in fills:
        near[fill["timestamp"] // width_ms, fill["side"]].append(fill)
    marks = []
    for (_, side), group in near.items():
        first = group[0]
        price = sum(float(fill["price"]) for fill in group) / len(group)
        said = f"{side} {first['quantity']} at {first['price']}, {iso(first['timestamp'])}"
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        marks.append(Mark(side, first["timestamp"], price, said + more))
    return marks


def _drawn(label: str, lines: Sequence[Line], marks: Sequence[Mark] = (), height: int = 260, unit: str = "") -> Markup:
    drawn = "".join(chart(label, lines, marks, width, height, unit) for width in WIDTHS)
    return Markup(drawn)  # noqa: S704 - `chart` escapes what is not its own
