"""Times and decimals as text."""

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

# Parts of "2026-11-25 15:20:01.123Z"; the page's script cuts local times the same way.
WHOLE, SECONDS, DATE, CLOCK, MINUTES = (0, 23), (0, 19), (5, 10), (11, 19), (11, 16)


class Stamp(NamedTuple):
    """A moment: its UTC text, and what the script needs to say it in local time."""

    ms: int
    start: int
    end: int

    @property
    def iso(self) -> str:
        """As HTML's `datetime` has it."""
        return datetime.fromtimestamp(self.ms // 1000, UTC).strftime(f"%Y-%m-%dT%H:%M:%S.{self.ms % 1000:03}Z")

    @property
    def text(self) -> str:
        """The part of it that is shown."""
        return self.iso.replace("T", " ")[self.start : self.end]


def stamp(ms: int, part: tuple[int, int] = WHOLE) -> Stamp:
    """A moment of which `part` is shown."""
    return Stamp(ms, *part)


def plain(number: Decimal) -> str:
    """All digits, without exponent and trailing zeros."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class Number(NamedTuple):
    """A decimal, and the digits that would fill its fraction up to its column's longest: they align the points."""

    text: str
    fill: str
    sign: int


def aligned(numbers: Iterable[Decimal]) -> list[Number]:
    """A column of decimals, to be set flush right with their fills unseen."""
    signs_and_texts = [((number > 0) - (number < 0), plain(number)) for number in numbers]
    longest = max((len(text.partition(".")[2]) for _, text in signs_and_texts), default=0)
    return [Number(text, _fill(text, longest), sign) for sign, text in signs_and_texts]


def _fill(text: str, digits: int) -> str:
    fraction = text.partition(".")[2]
    point = "." if digits and not fraction else ""
    return point + "0" * (digits - len(fraction))


def duration(ms: int) -> str:
    """A rough length of time: 45 s, 3 min, 5 h, 2 days."""
    seconds = ms // 1000
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
