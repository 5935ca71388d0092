"""The geometry of a chart: everything its SVG needs, in percent across and pixels down.

Across is in percent so that the text keeps its size at any width. Positions are floats; what is written are the
exact decimals.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

from api.dashboard.formats import CLOCK, DATE, MINUTES, Stamp, plain, stamp
from api.dashboard.schemas import Point, Series

HEIGHT = 248
TOP, BOTTOM = 12, 12  # room for the marks of the extremes
WIDE = 1000  # units across of the lines' own coordinates
_GAP_BUCKETS, _GAP_MS = 5, 60_000  # no line over a longer silence
_STEPS = (Decimal(1), Decimal(2), Decimal("2.5"), Decimal(5), Decimal(10))
_LINES = 6
_SECOND, _MINUTE, _HOUR, _DAY = 1000, 60_000, 3_600_000, 86_400_000
_TIME_STEPS_MS = [
    *(n * _SECOND for n in (1, 2, 5, 10, 15, 30)),
    *(n * _MINUTE for n in (1, 2, 5, 10, 15, 30)),
    *(n * _HOUR for n in (1, 2, 4, 6, 12)),
    _DAY,
]
_MOST_TIMES = 8
_SHORTEST_MS = 10 * _SECOND
_TAG_CHARACTERS = 11


@dataclass(frozen=True)
class Mark:
    """A place in the chart with its text."""

    at: float
    text: str


@dataclass(frozen=True)
class TimeMark:
    """A mark of the time axis; `anchor` keeps its text inside, `spare` ones are left out where it is narrow."""

    x: float
    stamp: Stamp
    anchor: str
    spare: bool


@dataclass(frozen=True)
class Spot:
    """A point of the line."""

    x: float
    y: float


@dataclass(frozen=True)
class Chart:
    """A drawn series; `line`, `area` and `band` (from lowest to highest) are SVG paths, WIDE × HEIGHT."""

    series: Series
    line: str
    area: str
    band: str
    levels: list[Mark]
    times: list[TimeMark]
    lowest: Spot
    highest: Spot
    last: Spot
    minimum: str
    maximum: str
    latest: str
    tag: str
    change: str
    rising: int
    start: Stamp
    end: Stamp
    height: int = HEIGHT

    @property
    def data(self) -> str:
        """JSON for the read-out: [ms, value, percent across, pixels down] of each point."""
        scale = Scale.of(self.series)
        return json.dumps(
            [
                [p.time_ms, plain(p.last), round(scale.x(p.time_ms), 2), round(scale.y(p.last), 1)]
                for p in self.series.points
            ],
            separators=(",", ":"),
        )


@dataclass(frozen=True)
class Scale:
    """From times and values to places."""

    start_ms: int
    length_ms: int
    bottom: Decimal
    top: Decimal

    @classmethod
    def of(cls, series: Series) -> "Scale":
        """The whole time across; down, from the lowest value to the highest with a little room."""
        low = min(point.low for point in series.points)
        high = max(point.high for point in series.points)
        room = (high - low) / 20 or abs(high) / 1000 or Decimal(1)
        length_ms = max(series.end_ms - series.start_ms, _SHORTEST_MS)
        return cls(series.end_ms - length_ms, length_ms, low - room, high + room)

    def x(self, time_ms: float) -> float:
        """Percent from the left."""
        return 100 * (time_ms - self.start_ms) / self.length_ms

    def y(self, value: Decimal) -> float:
        """Pixels from the top."""
        share = float((value - self.bottom) / (self.top - self.bottom))
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def draw(series: Series) -> Chart:
    """The chart of a series."""
    scale, points = Scale.of(series), series.points
    lowest, highest = min(points, key=lambda point: point.low), max(points, key=lambda point: point.high)
    change = points[-1].last - points[0].last
    runs = list(_runs(points, series.bucket_ms))
    return Chart(
        series=series,
        line="".join(_line(run, scale) for run in runs),
        area="".join(_under(run, scale) for run in runs),
        band="".join(_band(run, scale) for run in runs),
        levels=_levels(scale),
        times=_times(scale),
        lowest=Spot(scale.x(lowest.time_ms), scale.y(lowest.low)),
        highest=Spot(scale.x(highest.time_ms), scale.y(highest.high)),
        last=Spot(scale.x(points[-1].time_ms), scale.y(points[-1].last)),
        minimum=plain(lowest.low),
        maximum=plain(highest.high),
        latest=plain(points[-1].last),
        tag=_short(points[-1].last),
        change=f"{'+' if change > 0 else ''}{plain(change)}",
        rising=(change > 0) - (change < 0),
        start=stamp(points[0].time_ms),
        end=stamp(points[-1].time_ms),
    )


def _runs(points: list[Point], bucket_ms: int) -> Iterator[list[Point]]:
    """The points, parted where nothing was heard for long."""
    longest_ms = max(_GAP_BUCKETS * bucket_ms, _GAP_MS)
    run = points[:1]
    for point in points[1:]:
        if point.time_ms - run[-1].time_ms > longest_ms:
            yield run
            run = []
        run.append(point)
    yield run


def _place(scale: Scale, time_ms: int, value: Decimal) -> str:
    return f"{scale.x(time_ms) * WIDE / 100:.1f} {scale.y(value):.1f}"


def _line(run: list[Point], scale: Scale) -> str:
    # A point alone becomes a dot: the line has round ends.
    alone = "h0" if len(run) == 1 else ""
    return "M" + "L".join(_place(scale, point.time_ms, point.last) for point in run) + alone


def _under(run: list[Point], scale: Scale) -> str:
    first, last = (scale.x(point.time_ms) * WIDE / 100 for point in (run[0], run[-1]))
    return f"{_line(run, scale).removesuffix('h0')}L{last:.1f} {HEIGHT}L{first:.1f} {HEIGHT}Z"


def _band(run: list[Point], scale: Scale) -> str:
    highs = [_place(scale, point.time_ms, point.high) for point in run]
    lows = [_place(scale, point.time_ms, point.low) for point in reversed(run)]
    return "M" + "L".join([*highs, *lows]) + "Z"


def _levels(scale: Scale) -> list[Mark]:
    """Round values, three to six of them."""
    rough = (scale.top - scale.bottom) / _LINES
    magnitude = Decimal(10) ** rough.adjusted()
    step = next(step * magnitude for step in _STEPS if step * magnitude >= rough)
    digits = max(0, -int(step.normalize().as_tuple().exponent))
    first = math.ceil(scale.bottom / step)
    values = [step * number for number in range(first, math.floor(scale.top / step) + 1)]
    return [Mark(scale.y(value), f"{value:.{digits}f}") for value in values]


def _times(scale: Scale) -> list[TimeMark]:
    """Round times, at most _MOST_TIMES of them."""
    step = next(step for step in _TIME_STEPS_MS if scale.length_ms // step < _MOST_TIMES)
    part = CLOCK if step < _MINUTE else MINUTES if step < _DAY else DATE
    marks = []
    for number in range(math.ceil(scale.start_ms / step), (scale.start_ms + scale.length_ms) // step + 1):
        x = scale.x(number * step)
        anchor = "start" if x < 5 else "middle"
        marks.append(TimeMark(x, stamp(number * step, part), anchor, spare=number % 2 == 1))
    return marks


def _short(value: Decimal) -> str:
    """The value as it fits beside the chart; all its digits are above it."""
    text = plain(value)
    if len(text) <= _TAG_CHARACTERS or "." not in text:
        return text
    return text[: max(text.index("."), _TAG_CHARACTERS)].rstrip(".") + "…"
