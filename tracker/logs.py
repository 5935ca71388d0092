"""`tracker logs`: what the parts wrote."""

import os
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from infra.local.stack import NEEDS, part_name
from tracker.config import DataDir, Kept, fail, homes, load_home, problems_shown, running_homes

POLL_S = 0.2


def logs(
    parts: Annotated[
        list[str] | None, typer.Argument(metavar="[PART]...", help="As `tracker status` names them; all without it.")
    ] = None,
    *,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on as the parts write.")] = False,
    lines: Annotated[
        int | None, typer.Option("-n", "--lines", min=0, help="How many of the last lines: 50, of several parts 10.")
    ] = None,
    exchange: Kept = None,
    data_dir: DataDir = None,
) -> None:
    """Show the logs of the running stack or of the last one; of several parts, with the part before each line."""
    home = _home(exchange, data_dir)
    with problems_shown():
        names = list(dict.fromkeys(part_name(part) for part in parts or NEEDS))
    files = {name: home / "logs" / f"{name}.log" for name in names}
    if parts and (missing := next((name for name, file in files.items() if not file.exists()), None)):
        fail(f"{missing} has no log in {home}: it never ran there; `tracker status` shows what runs")
    if not any(file.exists() for file in files.values()):
        fail(f"there are no logs in {home}; start the stack with `make run` or `tracker up`")
    width = len(max(names, key=len)) if len(names) > 1 else 0
    tails = {f"{name:<{width}} | ".encode() if width else b"": Tail(file) for name, file in files.items()}
    try:
        for prefix, tail in tails.items():
            _show(prefix, deque(tail.read(whole=follow), (10 if width else 50) if lines is None else lines))
        while follow:
            time.sleep(POLL_S)
            for prefix, tail in tails.items():
                _show(prefix, tail.read(whole=True))
    except KeyboardInterrupt:
        return


def _home(exchange: str | None, data_dir: Path | None) -> Path:
    """The data directory of `exchange`; without it of the stack that runs, or ran last."""
    settings, home = load_home(exchange, data_dir)
    found = [] if exchange else running_homes(settings) or homes(settings)
    return found[0][0] if found else home


def _show(prefix: bytes, lines: Iterator[bytes] | deque[bytes]) -> None:
    for line in lines:
        typer.echo(prefix + line.rstrip(b"\n"))


class Tail:
    """What is new in a log file, which may be trimmed, or begun anew by the next start of the stack."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._inode = self._position = 0

    def read(self, *, whole: bool) -> Iterator[bytes]:
        """The lines since the last call; with `whole` none that is not ended yet."""
        try:
            opened = self._file.open("rb")
        except FileNotFoundError:  # put aside, and nothing written since
            return
        with opened:
            status = os.fstat(opened.fileno())
            if status.st_ino != self._inode or status.st_size < self._position:
                self._inode, self._position = status.st_ino, 0
            opened.seek(self._position)
            for line in opened:
                if whole and not line.endswith(b"\n"):
                    return
                self._position += len(line)
                yield line
