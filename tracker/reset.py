"""`tracker reset`: forget everything."""

import shutil
from typing import Annotated

import typer

from infra.local.state import AlreadyRunning, StackState, end_leftovers, only_stack
from tracker.config import DataDir, Kept, fail, homes, load_home, problems_shown


def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    exchange: Kept = None,
    data_dir: DataDir = None,
) -> None:
    """Delete the data of a stopped stack: users, portfolios, topics, tables, snapshots and logs."""
    settings, home = load_home(exchange, data_dir)
    if not home.exists():
        typer.echo(f"nothing to delete: there is no {home}")
    else:
        with problems_shown():
            try:
                with only_stack(home):
                    if not yes:
                        typer.confirm(f"Delete everything in {home}?", abort=True)
                    end_leftovers(home)
                    shutil.rmtree(home)
            except AlreadyRunning:
                state = StackState.read(home)
                how = f"Ctrl-C, or `kill {state.pid}`" if state and state.is_running() else "Ctrl-C"
                fail(f"error: a stack is running in {home}; stop it first ({how})")
        typer.echo(f"deleted {home}")
    for other, _ in homes(settings):
        if other != home:
            typer.echo(f"kept {other}; `tracker reset --exchange {other.name}` deletes it")
