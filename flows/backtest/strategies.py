"""The strategies that are built in."""

from collections import deque
from collections.abc import Mapping
from decimal import Decimal

from flows.backtest.account import Account
from flows.backtest.bar import Bar
from flows.backtest.errors import ParamError
from flows.backtest.orders import Order
from flows.backtest.strategy import Orders
from flows.domain.market import SECOND_MS


class BuyAndHold:
    """Puts all cash, in equal parts, into each symbol, and holds."""

    def __init__(self) -> None:
        self._done = False

    def on_second(self, stats: Mapping[str, Bar], account: Account) -> Orders:
        """Buy everything after the first second."""
        if self._done:
            return None
        self._done = True
        part = account.cash / len(account.symbols)
        return [Order.buy(symbol, quote=part) for symbol in account.symbols]


class _Averages:
    """The sums of a symbol's last `fast` and `slow` closes."""

    __slots__ = ("_closes", "_fast", "_fast_sum", "_slow", "_slow_sum", "is_above")

    def __init__(self, fast: int, slow: int) -> None:
        self._fast, self._slow = fast, slow
        self._fast_sum = self._slow_sum = 0
        self._closes: deque[int] = deque(maxlen=slow + 1)
        self.is_above: bool | None = None  # the fast one; None until both are whole

    def crossed(self, close: int) -> bool:
        """Take a close; whether the fast average is on another side of the slow one than it was before."""
        closes = self._closes
        closes.append(close)
        self._fast_sum += close
        self._slow_sum += close
        if len(closes) > self._fast:
            self._fast_sum -= closes[-1 - self._fast]
        if len(closes) > self._slow:
            self._slow_sum -= closes[0]
        elif len(closes) < self._slow:
            return False
        difference = self._fast_sum * self._slow - self._slow_sum * self._fast
        if not difference:
            return False
        before, self.is_above = self.is_above, difference > 0
        return before is not None and before != self.is_above


class MovingAverageCross:
    """Buys a symbol when its fast average crosses above its slow one, sells it when it crosses below.

    The averages are of the closes of the symbol's last `fast` and `slow` seconds with trades; each symbol has an equal
    part of the equity.
    """

    fast: int = 60
    slow: int = 300

    def __init__(self) -> None:
        if not 0 < self.fast < self.slow:
            raise ParamError(f"fast ({self.fast}) must be above 0 and below slow ({self.slow})")
        self._averages: dict[str, _Averages] = {}

    def on_second(self, stats: Mapping[str, Bar], account: Account) -> Orders:
        """Trade what has crossed."""
        orders = []
        for symbol, bar in stats.items():
            averages = self._averages.get(symbol)
            if averages is None:
                averages = self._averages[symbol] = _Averages(self.fast, self.slow)
            if averages.crossed(bar.stat.close):
                if not averages.is_above:
                    if held := account.position(symbol):
                        orders.append(Order.sell(symbol, held))
                elif not account.position(symbol):
                    orders.append(Order.buy(symbol, quote=account.equity / len(account.symbols)))
        return orders


class PeriodicRebalance:
    """Brings every symbol to an equal part of the equity, each `every_s` seconds; what differs less than
    `tolerance_bps` of the equity is left."""

    every_s: int = 3600
    tolerance_bps: int = 10

    def __init__(self) -> None:
        if self.every_s < 1:
            raise ParamError(f"every_s ({self.every_s}) must be above 0")
        if self.tolerance_bps < 0:
            raise ParamError(f"tolerance_bps ({self.tolerance_bps}) must not be below 0")
        self._due_ms = 0

    def on_second(self, stats: Mapping[str, Bar], account: Account) -> Orders:
        """Sell what is above its part, then buy what is below."""
        now_ms = next(iter(stats.values())).timestamp
        if now_ms < self._due_ms:
            return None
        self._due_ms = now_ms + self.every_s * SECOND_MS
        for waiting in account.open_orders:  # of the last time: its symbol has not traded since
            account.cancel(waiting)
        equity = max(account.equity, Decimal(0))
        part = equity / len(account.symbols)
        sells, buys = [], []
        for symbol in account.symbols:
            held = account.position(symbol) * (account.last_price(symbol) or 0)
            if abs(part - held) * 10_000 <= equity * self.tolerance_bps:
                continue
            if held > part:
                sells.append(Order.sell(symbol, quote=held - part))
            else:
                buys.append(Order.buy(symbol, quote=part - held))
        return sells + buys


BUILT_IN = {
    "buy_and_hold": BuyAndHold,
    "moving_average_cross": MovingAverageCross,
    "periodic_rebalance": PeriodicRebalance,
}
