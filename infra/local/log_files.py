"""One log file a part, of bounded size."""

import shutil
import time
from collections.abc import Collection
from pathlib import Path

LIMIT_BYTES = 20_000_000
CHECK_EVERY_S = 5.0


class LogFiles:
    """`<home>/logs/<part>.log`, and beside it `.log.1`: of the last run, or what was too much."""

    def __init__(self, home: Path, names: Collection[str], limit_bytes: int = LIMIT_BYTES) -> None:
        self._directory = home / "logs"
        self._names = names
        self._limit = limit_bytes
        self._next_check = 0.0

    def path(self, name: str) -> Path:
        """Where a part's output goes."""
        return self._directory / f"{name}.log"

    def rotate(self) -> None:
        """Begin new files; to be called before the parts start."""
        for name in self._names:
            file = self.path(name)
            if file.exists():
                file.replace(file.with_suffix(".log.1"))

    def trim(self, now: float | None = None) -> None:
        """Move what is over the limit to `.log.1`; cheap to call often.

        The part keeps its open file, and appends, so its next line begins the emptied file. Lines written between
        the copy and the cut are lost, which a log may.
        """
        now = time.monotonic() if now is None else now
        if now < self._next_check:
            return
        self._next_check = now + CHECK_EVERY_S
        for name in self._names:
            file = self.path(name)
            if file.exists() and file.stat().st_size > self._limit:
                shutil.copyfile(file, file.with_suffix(".log.1"))
                with file.open("r+b") as opened:
                    opened.truncate()

    def end_of(self, name: str, lines: int = 8) -> str:
        """The last lines a part wrote, for a message; "" when it wrote nothing."""
        file = self.path(name)
        if not file.exists() or not file.stat().st_size:
            return ""
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - 4000))
            last = opened.read().decode(errors="replace").splitlines()[-lines:]
        return "\n".join([f"the end of {file}:", *(f"  {line}" for line in last)])
