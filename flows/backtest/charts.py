"""Line charts as inline SVG: no script, nothing to load."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from math import ceil, floor, log10

from flows.backtest.curves import Point

STEPS_S = (
    1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800, 1209600,
    2592000, 7776000, 31536000,
)  # fmt: skip
LEFT, RIGHT, TOP, BOTTOM = 78, 12, 10, 26


@dataclass(frozen=True, slots=True)
class Line:
    """A curve with the CSS class it is drawn in; with `band`, the range of each point behind it."""

    css: str
    points: Sequence[Point]
    band: bool = False
    area: bool = False  # filled to 0


@dataclass(frozen=True, slots=True)
class Mark:
    """A triangle, up for `buy`, down for `sell`; `text` is shown by the pointer."""

    side: str
    time_ms: int
    value: float
    text: str


def chart(label: str, lines: Sequence[Line], marks: Sequence[Mark] = (), width: int = 1000, height: int = 260,
          unit: str = "") -> str:  # fmt: skip
    """An SVG element; `label` is what it says to a screen reader. There is at least one point."""
    times = [point.time_ms for line in lines for point in line.points]
    values = [value for line in lines for point in line.points for value in _range(line, point)]
    values += [mark.value for mark in marks]
    scale = _Scale(min(times), max(times), min(values), max(values), width, height)
    parts = [
        f'<svg class="chart w{width}" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="{escape(label)}">'
    ]
    parts += _axes(scale, unit)
    for line in lines:
        if line.band:
            parts.append(f'<polygon class="band {line.css}" points="{_band(scale, line.points)}"/>')
        if line.area:
            ends = " ".join(f"{scale.x(line.points[end].time_ms):.1f},{scale.y(0):.1f}" for end in (-1, 0))
            parts.append(f'<polygon class="area {line.css}" points="{_path(scale, line)} {ends}"/>')
        parts.append(f'<polyline class="{line.css}" points="{_path(scale, line)}"/>')
    parts += [_mark(scale, mark) for mark in marks]
    return "".join([*parts, "</svg>"])


@dataclass(frozen=True, slots=True)
class _Scale:
    start_ms: int
    end_ms: int
    low: float
    high: float
    width: int
    height: int

    def x(self, time_ms: int) -> float:
        share = (time_ms - self.start_ms) / ((self.end_ms - self.start_ms) or 1)
        return LEFT + share * (self.width - LEFT - RIGHT)

    def y(self, value: float) -> float:
        low, high = self._bounds()
        return TOP + (high - value) / (high - low) * (self.height - TOP - BOTTOM)

    def _bounds(self) -> tuple[float, float]:
        room = (self.high - self.low) * 0.06 or abs(self.high) * 0.01 or 1.0
        return self.low - room, self.high + room


def _range(line: Line, point: Point) -> tuple[float, ...]:
    if line.area:
        return point.low, 0.0
    return (point.low, point.high) if line.band else (point.last,)


def _path(scale: _Scale, line: Line) -> str:
    return " ".join(
        f"{scale.x(point.time_ms):.1f},{scale.y(point.low if line.area else point.last):.1f}" for point in line.points
    )


def _band(scale: _Scale, points: Sequence[Point]) -> str:
    there = [f"{scale.x(point.time_ms):.1f},{scale.y(point.high):.1f}" for point in points]
    back = [f"{scale.x(point.time_ms):.1f},{scale.y(point.low):.1f}" for point in reversed(points)]
    return " ".join(there + back)


def _mark(scale: _Scale, mark: Mark) -> str:
    x, y = scale.x(mark.time_ms), scale.y(mark.value)
    sign = 1 if mark.side == "buy" else -1
    shape = f"{x:.1f},{y:.1f} {x - 5:.1f},{y + 9 * sign:.1f} {x + 5:.1f},{y + 9 * sign:.1f}"
    return f'<polygon class="mark {mark.side}" points="{shape}"><title>{escape(mark.text)}</title></polygon>'


def _axes(scale: _Scale, unit: str) -> list[str]:
    parts = []
    right, bottom = scale.width - RIGHT, scale.height - BOTTOM
    ticks, decimals = value_ticks(scale.low, scale.high)
    for value in ticks:
        y = scale.y(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:,.{decimals}f}{unit}</text>')
    for time_ms, text in time_ticks(scale.start_ms, scale.end_ms, scale.width // 130):
        x = scale.x(time_ms)
        anchor = "end" if x > right - 30 else "middle"
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{scale.height - 8}" text-anchor="{anchor}">{text}</text>')
    return parts


def value_ticks(low: float, high: float, count: int = 5) -> tuple[list[float], int]:
    """Round values between two, about so many, and with how many decimals they differ."""
    span = (high - low) or abs(high) * 0.01 or 1.0
    rough = span / count
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= rough * (1 - 1e-9))
    decimals = max(0, -floor(log10(step) + 1e-9) + (f"{step / power:.1f}" == "2.5"))
    return [number * step for number in range(ceil(low / step - 1e-9), floor(high / step + 1e-9) + 1)], decimals


def time_ticks(start_ms: int, end_ms: int, count: int) -> list[tuple[int, str]]:
    """Round times, UTC, no more than so many; midnights are dates."""
    span_s = max(1, (end_ms - start_ms) // 1000)
    step = next((step for step in STEPS_S if span_s / step <= max(count, 1)), STEPS_S[-1]) * 1000
    return [(time, _time(time, step)) for time in range(-(-start_ms // step) * step, end_ms + 1, step)]


def _time(time_ms: int, step_ms: int) -> str:
    time = datetime.fromtimestamp(time_ms // 1000, UTC)
    if step_ms >= 86_400_000 or time.hour == time.minute == time.second == 0:
        return f"{time:%Y-%m-%d}"
    return f"{time:%H:%M}" if step_ms >= 60_000 else f"{time:%H:%M:%S}"
