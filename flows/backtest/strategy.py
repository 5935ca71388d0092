"""What a strategy is.

class BuyTheDip(Strategy):
    '''Buys once when the price has fallen by `percent` below its first.'''

    percent: Decimal = Decimal(5)

    def on_second(self, stats, account):
        ...
        return Order.buy("BTCUSDT", quote="1000")
"""

from collections.abc import Iterable, Mapping
from typing import Protocol

from flows.backtest.account import Account
from flows.backtest.bar import Bar
from flows.backtest.orders import Order

Orders = Iterable[Order] | Order | None


class Strategy(Protocol):
    """A class with `on_second`; its annotated attributes are its parameters, and set before `__init__` is called.

    It need not derive from this one.
    """

    def on_second(self, stats: Mapping[str, Bar], account: Account) -> Orders:
        """Look at a second that has just ended: its Bars, by symbol, of those that traded. Order, or do nothing."""
