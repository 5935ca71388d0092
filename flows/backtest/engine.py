"""One strategy over seconds, one second at a time: nothing later is known anywhere in here.

In each second, in this order: orders that were given before are filled; equity is taken at the closes; the strategy is
shown the second and orders. So an order is filled in a later second than the one it was made of:

- a market order at the open of its symbol's next SecondStat, plus slippage (bought dearer, sold cheaper);
- a limit order in the first later SecondStat whose low (to buy) or high (to sell) reaches the limit, at the limit, or
  at the open where that is better already; without slippage.

What can be filled at the open comes first, then the limits that are reached within the second, each by age.
"""

import traceback
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from flows.backtest.account import Account, Ledger, Terms
from flows.backtest.bar import Bar
from flows.backtest.errors import BacktestError, StrategyError
from flows.backtest.orders import Fill, OpenOrder, Order, Refusal
from flows.backtest.units import RATE
from flows.domain.second_stat import SecondStat


class Observer(Protocol):
    """Takes note of each second once its fills are made; equity in 1e-32 units."""

    def __call__(self, timestamp: int, stats: Sequence[SecondStat], equity: int, ledger: Ledger, /) -> None: ...


def by_second(stats: Iterable[SecondStat]) -> Iterator[tuple[int, list[SecondStat]]]:
    """The SecondStats of each timestamp. Raises BacktestError if they do not ascend by (timestamp, symbol)."""
    now, group = None, list[SecondStat]()
    for stat in stats:
        if stat.timestamp == now:
            if stat.symbol <= group[-1].symbol:
                raise BacktestError(f"{stat.symbol} at {stat.timestamp} comes after {group[-1].symbol}")
            group.append(stat)
            continue
        if now is not None:
            if stat.timestamp < now:
                raise BacktestError(f"{stat.symbol} at {stat.timestamp} comes after {now}")
            yield now, group
        now, group = stat.timestamp, [stat]
    if now is not None:
        yield now, group


class Run:
    """A strategy with an account of its own; `second` is to be called with each second in turn."""

    def __init__(
        self, strategy: Any, terms: Terms, symbols: Iterable[str], observers: Sequence[Observer] = (), name: str = ""
    ) -> None:
        self.ledger = Ledger(terms)
        self.fills: list[Fill] = []
        self.refusals: list[Refusal] = []
        self._strategy, self._observers = strategy, observers
        self._name = name or type(strategy).__name__
        self._symbols = tuple(sorted(symbols))
        self._known = frozenset(self._symbols)
        self._book: dict[int, OpenOrder] = {}  # by number, which is by age
        self._placed = 0
        self.account = Account(self.ledger, self._symbols, self._book, self._cancel)

    @property
    def open_orders(self) -> int:
        """How many orders wait."""
        return len(self._book)

    def second(self, timestamp: int, stats: Sequence[SecondStat]) -> None:
        """Take the SecondStats of one second. Raises StrategyError."""
        if self._book:
            self._fill(timestamp, {stat.symbol: stat for stat in stats})
        closes = self.ledger.closes
        for stat in stats:
            closes[stat.symbol] = stat.close
        equity = self.ledger.equity()
        for observe in self._observers:
            observe(timestamp, stats, equity, self.ledger)
        self._order(timestamp, {stat.symbol: Bar(stat) for stat in stats})

    def _fill(self, timestamp: int, stats: dict[str, SecondStat]) -> None:
        waiting = [(one, stats[one.order.symbol]) for one in self._book.values() if one.order.symbol in stats]
        within = []
        for one, stat in waiting:
            limit = one.order.limit
            if limit is None:
                slip = self.ledger.terms.slippage_rate
                self._fill_one(timestamp, one, stat.open * (RATE + slip if one.order.side == "buy" else RATE - slip))
            elif stat.open <= limit if one.order.side == "buy" else stat.open >= limit:
                self._fill_one(timestamp, one, stat.open * RATE)
            elif stat.low <= limit if one.order.side == "buy" else stat.high >= limit:
                within.append((one, limit))
        for one, limit in within:
            self._fill_one(timestamp, one, limit * RATE)

    def _fill_one(self, timestamp: int, one: OpenOrder, price: int) -> None:
        order = one.order
        del self._book[one.number]
        quantity = self.ledger.quantity(order, price)
        signed = quantity if order.side == "buy" else -quantity
        fee = self.ledger.fill(order.symbol, signed, price) if quantity else "nothing is left of its size"
        if isinstance(fee, str):
            self.refusals.append(Refusal(timestamp, order, fee))
        else:
            self.fills.append(
                Fill(timestamp, one.number, one.placed_ms, order.symbol, order.side, order.kind, quantity, price, fee)
            )

    def _order(self, timestamp: int, bars: dict[str, Bar]) -> None:
        try:
            orders = self._strategy.on_second(bars, self.account)
            for order in () if orders is None else (orders,) if isinstance(orders, Order) else orders:
                self._place(timestamp, order)
        except BacktestError as error:
            raise StrategyError(f"{self._name}, at {timestamp}: {error}") from error
        except (Exception, SystemExit) as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            at = f"{where.filename}:{where.lineno}"
            raise StrategyError(f"{self._name}, at {timestamp}: {type(error).__name__}: {error} ({at})") from error

    def _place(self, timestamp: int, order: Order) -> None:
        if not isinstance(order, Order):
            raise StrategyError(f"on_second gives Orders, or nothing, not {order!r}")
        if order.symbol not in self._known:
            raise StrategyError(f"an order for {order.symbol}; there are {', '.join(self._symbols)}")
        self._placed += 1
        self._book[self._placed] = OpenOrder(self._placed, timestamp, order)

    def _cancel(self, number: int) -> bool:
        return self._book.pop(number, None) is not None
