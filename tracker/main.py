"""The console command `tracker`: a subcommand a module, imported only when it is asked for."""

import signal
import sys
from collections.abc import Sequence
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import Annotated

import typer

# name → module:function; a new subcommand is a new line here.
COMMANDS = {
    "up": "tracker.up:up",
    "watch": "tracker.watch:watch",
    "status": "tracker.status:status",
    "import": "tracker.imports:import_files",
    "record": "tracker.record:record",
    "replay": "tracker.replay:replay",
    "verify": "tracker.verify:verify",
    "backtest": "tracker.backtest:backtest",
    "bench": "tracker.bench:bench",
    "gaps": "tracker.gaps:gaps",
    "logs": "tracker.logs:logs",
    "reset": "tracker.reset:reset",
}


def show_version(wanted: bool) -> None:
    """`tracker --version`."""
    if wanted:
        typer.echo(f"tracker {metadata.version('crypto-asset-tracker')}")
        raise typer.Exit


def tracker(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Crypto Asset Tracker: live portfolios from exchange trades through Kafka, Bytewax, Redis and ClickHouse."""


def build_app(words: Sequence[str]) -> typer.Typer:
    """The app for a command line: with the subcommand that `words` name, or with all of them."""
    app = typer.Typer(no_args_is_help=True, rich_markup_mode="markdown", pretty_exceptions_enable=False)
    app.callback()(tracker)
    asked = next((word for word in words if not word.startswith("-")), None)
    for name, target in COMMANDS.items():
        module, _, function = target.partition(":")
        if (asked == name or asked not in COMMANDS) and find_spec(module):
            app.command(name)(getattr(import_module(module), function))
    return app


def main() -> None:
    """The entry point."""
    if "up" in sys.argv[1:2]:  # a stop that comes while the modules load: nothing runs yet
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: sys.exit(0))
    build_app(sys.argv[1:])()
