"""How far a long command is: one line on stderr, with rate and time left. Plain text, since loading more takes time."""

import sys
import time
from types import TracebackType
from typing import Self

TERMINAL_EVERY_S, FILE_EVERY_S = 0.2, 5.0
_WIDTH = 24


class ProgressLine:
    """`update` as often as you like. On a terminal the line is drawn anew, elsewhere there is one every 5 s."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._terminal = sys.stderr.isatty()
        self._every_s = TERMINAL_EVERY_S if self._terminal else FILE_EVERY_S
        self._began = self._shown = time.monotonic()
        self._drawn = False

    def __enter__(self) -> Self:
        return self

    def update(self, done: int, expected: int, where: str = "") -> None:
        """`done` units of about `expected` (0: unknown)."""
        now = time.monotonic()
        if now - self._shown >= self._every_s:
            self._shown = now
            self._write(progress_text(done, expected, now - self._began, self._unit, where))

    def finish(self, text: str) -> None:
        """The last word, with the time it took."""
        self._write(f"{text} in {duration(time.monotonic() - self._began)}")

    def _write(self, text: str) -> None:
        if self._terminal:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
            self._drawn = True
        else:
            print(text, file=sys.stderr, flush=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn:
            print(file=sys.stderr, flush=True)


def progress_text(done: int, expected: int, seconds: float, unit: str, where: str) -> str:
    """`[####------]  42 %  1,234 of 2,900 records, 10,000/s, 4 s left, at …`."""
    rate = done / seconds if seconds > 0 else 0.0
    parts = [f"{done:,}" + (f" of {expected:,}" if expected else "") + f" {unit}", f"{rate:,.0f}/s"]
    bar = ""
    if expected:
        share = min(1.0, done / expected)
        filled = round(share * _WIDTH)
        bar = f"[{'#' * filled}{'-' * (_WIDTH - filled)}] {100 * share:3.0f} %  "
        if rate:
            parts.append(f"{duration(max(0, expected - done) / rate)} left")
    return bar + ", ".join([*parts, *([where] if where else [])])


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
