"""`tracker reset`: forget everything."""

import shutil
from typing import Annotated

import typer

from infra.local.stack import home_of
from infra.local.state import end_leftovers, only_stack
from tracker.config import DataDir, Exchange, load_settings, problems_shown


def reset(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    exchange: Exchange = None,
    data_dir: DataDir = None,
) -> None:
    """Delete the data of a stopped stack: users, portfolios, topics, tables, snapshots and logs."""
    settings = load_settings(exchange=exchange, data_dir=data_dir)
    home = home_of(settings)
    if not home.exists():
        typer.echo(f"nothing to delete: there is no {home}")
        return
    with problems_shown(), only_stack(home):
        if not yes:
            typer.confirm(f"Delete everything in {home}?", abort=True)
        end_leftovers(home)
        shutil.rmtree(home)
    typer.echo(f"deleted {home}")
