"""`tracker logs`: what a part wrote."""

import time
from collections import deque
from pathlib import Path
from typing import Annotated

import typer

from infra.local.stack import home_of, part_name
from tracker.config import DataDir, Exchange, fail, load_settings, problems_shown, running_homes


def logs(
    part: Annotated[str, typer.Argument(help="A part, as `tracker status` names it.")],
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as the part writes.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, help="How many of the last lines.")] = 50,
    exchange: Exchange = None,
    data_dir: DataDir = None,
) -> None:
    """Show the log of a part, of the running stack or of the last one."""
    settings = load_settings(exchange=exchange, data_dir=data_dir)
    with problems_shown():
        name = part_name(part)
    running = running_homes(settings)
    home = running[0][0] if running else home_of(settings)
    file = home / "logs" / f"{name}.log"
    if not file.exists():
        fail(f"{name} has no log in {home}; start it with `tracker up`")
    position = _show_end(file, lines)
    try:
        while follow:
            position = _show_from(file, position)
            time.sleep(0.2)
    except KeyboardInterrupt:
        return


def _show_end(file: Path, lines: int) -> int:
    with file.open("rb") as opened:
        for line in deque(opened, maxlen=lines):
            typer.echo(line, nl=False)
        return opened.tell()


def _show_from(file: Path, position: int) -> int:
    """Show what is new; a file that became shorter was trimmed or begun anew."""
    with file.open("rb") as opened:
        if file.stat().st_size >= position:
            opened.seek(position)
        while chunk := opened.read(1 << 16):
            typer.echo(chunk, nl=False)
        return opened.tell()
