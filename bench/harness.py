"""What every benchmark gives, and how it is shown.

A benchmark is a module of this package with `run(**options) -> list[Figure]`. It starts what it needs, on free
loopback ports, and measures its peer in the same run: absolute rates differ from machine to machine, ratios much less.
A run that is one of many, set beside others by another program, gives that program's result line instead, as a dict.
"""

import inspect
import json
import os
import pkgutil
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Figure:
    """One measured value; `ratio` is this value divided by the peer's in the same run."""

    name: str
    value: float
    unit: str
    peer: str = ""
    ratio: float | None = None


def benchmarks() -> dict[str, str]:
    """Every benchmark by name, with the first line of its docstring."""
    names = [module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)])]
    modules = {name: import_module(f"bench.{name}") for name in names}
    return {
        name.replace("_", "-"): (module.__doc__ or "").partition("\n")[0]
        for name, module in modules.items()
        if hasattr(module, "run")
    }


def measure(name: str, options: Mapping[str, Any] | None = None) -> list[Figure] | dict[str, Any]:
    """Run one benchmark. Raises TypeError for an option that it does not have."""
    run = import_module(f"bench.{name.replace('-', '_')}").run
    for option in options or {}:
        if option not in inspect.signature(run).parameters:
            raise TypeError(f"benchmark {name} has no option --{option.replace('_', '-')}")
    figures: list[Figure] | dict[str, Any] = run(**(options or {}))
    return figures


def as_json(results: dict[str, list[Figure]]) -> str:
    """The results with what they were measured on."""
    whole: dict[str, Any] = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": metadata.version("crypto-asset-tracker"),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "benchmarks": {name: [asdict(figure) for figure in figures] for name, figures in results.items()},
    }
    return json.dumps(whole, indent=2)


def show(name: str, figures: Sequence[Figure]) -> None:
    """The figures of one benchmark as a table."""
    table = Table(box=None, pad_edge=False, header_style="bold", title=name, title_justify="left")
    for heading in ("what", "value", "unit", "ratio", "to"):
        table.add_column(heading, justify="right" if heading in {"value", "ratio"} else "left")
    for figure in figures:
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        table.add_row(figure.name, _rounded(figure.value), figure.unit, ratio, figure.peer)
    Console(width=None if Console().is_terminal else 160).print(table)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"
