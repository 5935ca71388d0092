"""`tracker watch`: a portfolio that ticks, in the terminal; in a pipe, one line a push."""

import asyncio
import contextlib
import getpass
import os
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live

from infra.local.secret import kept_secret
from infra.settings import Settings
from tracker.config import DataDir, Exchange, fail, load_settings, problems_shown, running_homes
from tracker.portfolio_client import Lost, NotReachable, PortfolioClient, Push, Refused
from tracker.portfolio_view import PortfolioView, line

DEMO_USER = "demo"
DEMO_COINS = {"btcusdt": "0.5", "ethusdt": "4", "solusdt": "30", "bnbusdt": "10", "xrpusdt": "2500"}
REFRESHES_PER_S = 4
_PROFILE_PORT = 8080

Played = tuple[str, str, float | str]  # from, to, speed


def watch(
    user: Annotated[str | None, typer.Option(help="Whose; asks for the password (or TRACKER_PASSWORD).")] = None,
    demo: Annotated[bool, typer.Option("--demo", help="A demo user with a few coins, made if need be.")] = False,
    *,
    replay: Annotated[
        str | None,
        typer.Option(metavar="FROM..TO", help="Recorded seconds: ISO times or epoch ms."),
    ] = None,
    speed: Annotated[str, typer.Option(help="Of the replay: 1 is real time, max as fast as possible.")] = "1",
    exchange: Exchange = None,
    data_dir: DataDir = None,
) -> None:
    """Show a portfolio live: prices, totals and the state of the connection; Ctrl-C ends it."""
    settings = load_settings(exchange=exchange, data_dir=data_dir)
    if demo == (user is not None):
        fail("say either --demo or --user NAME")
    played = None if replay is None else _range(replay, speed)
    home, url = _stack(settings)
    with problems_shown():
        name = DEMO_USER if user is None else user
        password = kept_secret(home / "demo-password.secret") if user is None else _password(user)
        try:
            asyncio.run(_watch(url, name, password, played, demo=demo))
        except KeyboardInterrupt:
            return
        except NotReachable as error:
            fail(f"{error}; is a stack running? Start one with `make run` or `tracker up`")


def _stack(settings: Settings) -> tuple[Path, str]:
    """(data directory, URL of the profile service): of the stack that runs, else where it would be."""
    for home, state in running_homes(settings):
        for part in state.parts:
            if part.name == "profile":
                return home, f"http://{part.address}"
    host, port = settings.listen(_PROFILE_PORT)
    return settings.data_dir.absolute() / settings.exchange, f"http://{host}:{port}"


def _password(user: str) -> str:
    return os.environ.get("TRACKER_PASSWORD") or getpass.getpass(f"password of {user}: ")


def _range(text: str, speed: str) -> Played:
    """What --replay and --speed say."""
    start, dots, end = text.partition("..")
    if not dots:
        fail("say --replay FROM..TO, as 2026-01-27T10:00:00Z..2026-01-27T11:00:00Z")
    try:
        return start, end, speed if speed == "max" else float(speed)
    except ValueError:
        fail("--speed is a number, or max")


async def _watch(url: str, name: str, password: str, played: Played | None, *, demo: bool) -> None:
    client = PortfolioClient(url)
    try:
        await _begin(client, name, password, demo=demo)
        async with contextlib.aclosing(client.replay(*played) if played else client.follow()) as events:
            if sys.stdout.isatty():
                await _show_view(client.url, events)
            else:
                async for event in events:
                    print(line(event), flush=True)
    except BrokenPipeError:  # `tracker watch | head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what the exit flushes goes nowhere
    finally:
        await client.close()


async def _begin(client: PortfolioClient, name: str, password: str, *, demo: bool) -> None:
    made = demo and await client.register(name, password)
    try:
        await client.log_in(name, password)
    except Refused as error:
        if demo and not made and error.status == 401:
            fail(f"the user {name} exists already, with another password than the one kept in the data directory")
        raise
    if demo:
        await client.hold_at_least(DEMO_COINS)


async def _show_view(url: str, events: AsyncGenerator[Push | Lost]) -> None:
    view = PortfolioView(url)
    # `transient` off: the last state stays readable after Ctrl-C.
    with Live(view, console=Console(), refresh_per_second=REFRESHES_PER_S):
        async for event in events:
            view.show(event)
