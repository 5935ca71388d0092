"""The average cross of the backtest benchmark: whole units, so that a peer without fractions can do the same."""

from collections import deque
from collections.abc import Mapping

from flows.backtest import Account, Bar, Order, Orders


class OneUnitCross:
    """Holds one unit of a single symbol while the average of its last `fast` closes is above that of `slow`."""

    fast: int = 60
    slow: int = 300

    def __init__(self) -> None:
        self._closes: deque[int] = deque(maxlen=self.slow + 1)
        self._fast_sum = self._slow_sum = 0
        self._side = 0

    def on_second(self, stats: Mapping[str, Bar], account: Account) -> Orders:
        """Trade on a change of sides."""
        ((symbol, bar),) = stats.items()
        closes, close = self._closes, bar.stat.close
        closes.append(close)
        self._fast_sum += close - (closes[-1 - self.fast] if len(closes) > self.fast else 0)
        self._slow_sum += close - (closes[0] if len(closes) > self.slow else 0)
        difference = self._fast_sum * self.slow - self._slow_sum * self.fast
        if len(closes) < self.slow or not difference:
            return None
        side = 1 if difference > 0 else -1
        before, self._side = self._side, side
        if before in (0, side):
            return None
        if side > 0:
            return Order.buy(symbol, 1)
        return Order.sell(symbol, 1) if account.position(symbol) else None
