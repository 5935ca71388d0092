"""What the subcommands share: the settings, with `.env` and options, and how problems are shown."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from dotenv import dotenv_values
from pydantic import ValidationError

from flows.domain.errors import TrackerError
from infra.local.state import RECORDING, STATE_FILE, StackState
from infra.settings import Settings
from infra.tls import use_kafka_tls

ROOT = Path(__file__).parents[1]

DataDir = Annotated[Path | None, typer.Option(help="Where state lives (DATA_DIR; default .data).")]
Exchange = Annotated[str | None, typer.Option(help="simulated or binance (EXCHANGE).", metavar="simulated|binance")]
Kept = Annotated[
    str | None,
    typer.Option(
        "--exchange",
        help="Whose data: simulated, binance or recording (EXCHANGE).",
        metavar="simulated|binance|recording",
    ),
]


def fail(message: str) -> NoReturn:
    """Say what is wrong and exit 1."""
    print(message, file=sys.stderr, flush=True)
    raise typer.Exit(1)


@contextmanager
def problems_shown() -> Iterator[None]:
    """Errors made on purpose, and those of the system, are a message and exit code 1, not a stack trace."""
    try:
        yield
    except TrackerError as error:
        fail(f"error: {error}")
    except OSError as error:
        fail(f"error: {error.filename}: {error.strerror}" if error.filename else f"error: {error}")


def load_settings(**options: Any) -> Settings:
    """The environment, with `.env` of this directory and of the checkout below it, and the options that are given.

    The real environment wins over `.env`, an option over both.
    """
    for file in (Path.cwd() / ".env", ROOT / ".env"):
        for name, value in dotenv_values(file).items():
            if value is not None:
                os.environ.setdefault(name, value)
    try:
        settings = Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        fail("error: " + "; ".join(_problem(details["loc"], details["msg"]) for details in error.errors()))
    use_kafka_tls(settings.tls("kafka"))
    return settings


def _problem(location: tuple[int | str, ...], message: str) -> str:
    """One line of a ValidationError; a problem of no single variable names it in its message."""
    return ": ".join([*(str(name).upper() for name in location), message.removeprefix("Value error, ")])


def load_home(exchange: str | None, data_dir: Path | None) -> tuple[Settings, Path]:
    """The settings, and the data directory of the exchange they name; `exchange` may be "recording" as well."""
    settings = load_settings(exchange=None if exchange == RECORDING else exchange, data_dir=data_dir)
    return settings, settings.data_dir.absolute() / (RECORDING if exchange == RECORDING else settings.exchange)


def homes(settings: Settings) -> list[tuple[Path, StackState]]:
    """The data directories under DATA_DIR in which a stack ran, the last one's first, with what it said last."""
    root = settings.data_dir.absolute()
    files = sorted(root.glob(f"*/{STATE_FILE}"), key=lambda file: file.stat().st_mtime, reverse=True)
    return [(file.parent, state) for file in files if (state := StackState.read(file.parent))]


def running_homes(settings: Settings) -> list[tuple[Path, StackState]]:
    """The data directories under DATA_DIR whose stack runs, the asked exchange's first."""
    states = [(home, state) for home, state in homes(settings) if state.is_running()]
    return sorted(states, key=lambda found: found[0].name != settings.exchange)
