"""The figures of a run, taken second by second in constant memory."""

import hashlib
from collections.abc import Callable, Sequence
from decimal import Decimal

from flows.backtest.account import Ledger
from flows.backtest.units import EXACT, METRIC, MONEY_PLACES, RATE, plain
from flows.domain.market import SECOND_MS
from flows.domain.second_stat import SecondStat

YEAR_S = 365 * 24 * 3600  # the market never closes

DEFINITIONS = {
    "total_return": "final equity / starting cash − 1",
    "buy_and_hold_return": "mean over the symbols of last close / first fill − 1; the first fill is the open of the "
    "symbol's first second after the run's first, plus slippage; no fees; 0 for a symbol without one",
    "max_drawdown": "the largest fall of equity below its highest so far (starting cash included), as a share of that",
    "volatility": "standard deviation (n − 1) of equity's returns from second to second, × √31,536,000 (seconds a "
    "year); a second without trades counts as a return of 0",
    "sharpe": "mean of these returns / their standard deviation × √31,536,000; risk-free rate 0",
    "turnover": "value of all fills / mean equity",
    "fees": "sum of the fees of all fills",
    "exposure": "share of the seconds at whose end something was held",
}


class Metrics:
    """Return, risk and the hash of the equity curve. Equity is in 1e-32 units."""

    def __init__(self, cash: int, write: Callable[[bytes], object] | None = None) -> None:
        self.equity = self._peak = cash
        self._fall, self._fall_peak = 0, cash
        self._first = self._last = 0
        self._sum = self._squares = Decimal(0)
        self._is_ruined = False
        self._area = 0  # Σ equity over seconds
        self._held, self._held_s = False, 0
        self._hash, self._write = hashlib.sha256(), write

    def __call__(self, timestamp: int, _stats: Sequence[SecondStat], equity: int, ledger: Ledger) -> None:
        """Take one second."""
        if self._first:
            elapsed = (timestamp - self._last) // SECOND_MS
            self._area += self.equity * elapsed
            self._held_s += elapsed * self._held
        else:
            self._first = timestamp
        self._last = timestamp
        if equity != self.equity:
            self._change(equity)
        self._held = bool(ledger.positions)
        line = b"%d,%b\n" % (timestamp, plain(equity, MONEY_PLACES).encode())
        self._hash.update(line)
        if self._write is not None:
            self._write(line)

    def _change(self, equity: int) -> None:
        if self.equity > 0:
            gain = METRIC.divide(METRIC.create_decimal(equity - self.equity), METRIC.create_decimal(self.equity))
            self._sum = METRIC.add(self._sum, gain)
            self._squares = METRIC.add(self._squares, METRIC.multiply(gain, gain))
        self._is_ruined |= equity <= 0
        self.equity = equity
        if equity > self._peak:
            self._peak = equity
        elif (self._peak - equity) * self._fall_peak > self._fall * self._peak:
            self._fall, self._fall_peak = self._peak - equity, self._peak

    @property
    def first_ms(self) -> int:
        """The first second."""
        return self._first

    @property
    def end_ms(self) -> int:
        """The end of the last second."""
        return self._last + SECOND_MS

    @property
    def equity_sha256(self) -> str:
        """Of the lines `timestamp,equity`, one a second with trades, each ended by a newline."""
        return self._hash.hexdigest()

    @property
    def max_drawdown(self) -> Decimal:
        """See DEFINITIONS."""
        return METRIC.divide(METRIC.create_decimal(self._fall), METRIC.create_decimal(self._fall_peak))

    def volatility(self) -> Decimal | None:
        """See DEFINITIONS; None for fewer than two returns, or where equity was not above 0 at all times."""
        deviation = self._deviation()
        return None if deviation is None else METRIC.multiply(deviation, METRIC.sqrt(Decimal(YEAR_S)))

    def sharpe(self) -> Decimal | None:
        """See DEFINITIONS; None without a volatility, or where it is 0."""
        deviation = self._deviation()
        if not deviation:
            return None
        mean = METRIC.divide(self._sum, Decimal(self._returns))
        return METRIC.multiply(METRIC.divide(mean, deviation), METRIC.sqrt(Decimal(YEAR_S)))

    @property
    def _returns(self) -> int:
        return (self._last - self._first) // SECOND_MS

    def _deviation(self) -> Decimal | None:
        count = self._returns
        if count < 2 or self._is_ruined:
            return None
        off = METRIC.divide(METRIC.multiply(self._sum, self._sum), Decimal(count))
        variance = METRIC.divide(METRIC.subtract(self._squares, off), Decimal(count - 1))
        return METRIC.sqrt(max(variance, Decimal(0)))

    def turnover(self, traded: int) -> Decimal | None:
        """See DEFINITIONS; `traded` in 1e-24. None where the mean equity is not above 0."""
        area = self._area + self.equity
        if area <= 0:
            return None
        return METRIC.divide(METRIC.create_decimal(traded * RATE * (self._returns + 1)), METRIC.create_decimal(area))

    def exposure(self) -> Decimal:
        """See DEFINITIONS."""
        return METRIC.divide(Decimal(self._held_s + self._held), Decimal(self._returns + 1))

    def total_return(self, cash: int) -> Decimal:
        """See DEFINITIONS."""
        return EXACT.divide(Decimal(self.equity - cash), Decimal(cash))


class BuyAndHold:
    """What the same symbols did meanwhile: the return of all cash in equal parts in each, without fees."""

    def __init__(self, symbols: Sequence[str], slippage_rate: int) -> None:
        self._symbols, self._slippage_rate = symbols, slippage_rate
        self._start: int | None = None
        self._bought: dict[str, int] = {}  # 1e-16
        self._closes: dict[str, int] = {}

    def __call__(self, timestamp: int, stats: Sequence[SecondStat], _equity: int, ledger: Ledger) -> None:
        """Take one second."""
        self._closes = ledger.closes
        if self._start is None:
            self._start = timestamp
        elif len(self._bought) < len(self._symbols):
            for stat in stats:
                self._bought.setdefault(stat.symbol, stat.open * (RATE + self._slippage_rate))

    def total_return(self) -> Decimal:
        """See DEFINITIONS."""
        total = Decimal(0)
        for symbol in sorted(self._bought):
            price = self._bought[symbol]
            gain = self._closes[symbol] * RATE - price
            total = METRIC.add(total, METRIC.divide(METRIC.create_decimal(gain), METRIC.create_decimal(price)))
        return METRIC.divide(total, Decimal(len(self._symbols)))
