"""What the report draws, thinned as it comes: a curve of any length takes the same memory. Floats: only to look at."""

from collections.abc import Sequence
from dataclasses import dataclass

from flows.backtest.account import Ledger
from flows.backtest.units import MONEY, RATE
from flows.domain.market import SECOND_MS
from flows.domain.second_stat import SecondStat

MOST = 600  # points of a curve


@dataclass(slots=True)
class Point:
    """A stretch of a curve: the time of its last value in ms, its lowest, highest and last value."""

    time_ms: int
    low: float
    high: float
    last: float


class Series:
    """At most MOST points, each of an equal stretch of time."""

    def __init__(self) -> None:
        self._start_ms, self._width_ms = 0, SECOND_MS
        self._points: dict[int, Point] = {}  # by stretch

    def add(self, time_ms: int, low: float, high: float, last: float) -> None:
        """Take the next value; time ascends."""
        if not self._points:
            self._start_ms = time_ms
        while (stretch := (time_ms - self._start_ms) // self._width_ms) >= MOST:
            self._width_ms *= 2
            before, self._points = self._points, {}
            for number, point in before.items():
                self._put(number // 2, point)
        self._put(stretch, Point(time_ms, low, high, last))

    def _put(self, stretch: int, new: Point) -> None:
        known = self._points.get(stretch)
        if known is None:
            self._points[stretch] = new
        else:
            known.time_ms, known.last = new.time_ms, new.last
            known.low, known.high = min(known.low, new.low), max(known.high, new.high)

    @property
    def points(self) -> list[Point]:
        """In the order of time."""
        return list(self._points.values())

    @property
    def width_ms(self) -> int:
        """How long a stretch is."""
        return self._width_ms


class Curves:
    """Equity, drawdown, what buy and hold would be worth, and the price of each symbol."""

    def __init__(self, symbols: Sequence[str], slippage_rate: int = 0) -> None:
        self.equity, self.drawdown, self.hold = Series(), Series(), Series()
        self.prices = {symbol: Series() for symbol in symbols}
        self._paid = 1 + slippage_rate / RATE
        self._worth: dict[str, tuple[float, float]] = {}  # what a symbol's part is worth at a price of 1, and now
        self._cash = self._peak = 0.0
        self._total = 0.0
        self._started = False

    def __call__(self, timestamp: int, stats: Sequence[SecondStat], equity: int, ledger: Ledger) -> None:
        """Take one second."""
        worth = equity / MONEY
        self._hold(stats, ledger)
        self._peak = max(self._peak, worth, self._cash)
        fall = (worth - self._peak) / self._peak * 100
        self.equity.add(timestamp, worth, worth, worth)
        self.drawdown.add(timestamp, fall, fall, fall)
        self.hold.add(timestamp, self._total, self._total, self._total)
        for stat in stats:
            self.prices[stat.symbol].add(timestamp, stat.low / RATE, stat.high / RATE, stat.close / RATE)

    def _hold(self, stats: Sequence[SecondStat], ledger: Ledger) -> None:
        if not self._started:
            self._started = True
            self._cash = self._total = ledger.terms.cash / MONEY
            return
        part = self._cash / len(self.prices)
        for stat in stats:
            units, before = self._worth.get(stat.symbol, (0.0, part))
            units = units or part / (stat.open * self._paid / RATE)
            now = units * stat.close / RATE
            self._total += now - before
            self._worth[stat.symbol] = units, now
