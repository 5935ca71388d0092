"""Cash and positions: the ledger that the engine keeps, and the view of it that a strategy gets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from flows.backtest.orders import OpenOrder, Order
from flows.backtest.units import MONEY_PLACES, RATE, VALUE_TO_MONEY, decimal


@dataclass(frozen=True, slots=True)
class Terms:
    """What trading costs and what is allowed; cash in 1e-32 units, rates in 1e-8."""

    cash: int
    fee_rate: int
    slippage_rate: int
    allow_short: bool = False
    allow_debt: bool = False


QUOTE_TO_MONEY = 10**24  # from 1e-8


class Ledger:
    """Exact cash (1e-32), positions (1e-8, none of them zero) and last closes (1e-8)."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.cash = terms.cash
        self.positions: dict[str, int] = {}
        self.closes: dict[str, int] = {}
        self.fees = 0  # 1e-32
        self.traded = 0  # value of all fills, 1e-24

    def equity(self) -> int:
        """Cash and what is held, at the last closes, in 1e-32."""
        closes = self.closes
        held = sum(quantity * closes[symbol] for symbol, quantity in self.positions.items())
        return self.cash + held * VALUE_TO_MONEY

    def quantity(self, order: Order, price: int) -> int:
        """What an order is about at a price in 1e-16, in 1e-8: of a quote, as much as it, cash and position allow."""
        if order.quantity is not None:
            return order.quantity
        quote = (order.quote or 0) * QUOTE_TO_MONEY
        if order.side == "buy":
            if not self.terms.allow_debt:
                quote = max(0, min(quote, self.cash))
            return quote // (price * (RATE + self.terms.fee_rate))
        quantity = quote // (price * RATE)
        return quantity if self.terms.allow_short else max(0, min(quantity, self.positions.get(order.symbol, 0)))

    def fill(self, symbol: str, signed: int, price: int) -> int | str:
        """Buy (or, below zero, sell) at a price in 1e-16. Gives the fee, or why not; nothing has changed then."""
        value = abs(signed) * price
        fee = value * self.terms.fee_rate
        cash = self.cash - signed * price * RATE - fee
        position = self.positions.get(symbol, 0) + signed
        if cash < 0 and cash < self.cash and not self.terms.allow_debt:
            return "not enough cash"
        if position < 0 and signed < 0 and not self.terms.allow_short:
            return "more than is held"
        self.cash = cash
        self.fees += fee
        self.traded += value
        if position:
            self.positions[symbol] = position
        else:
            del self.positions[symbol]
        return fee


class Account:
    """What a strategy can know and do. All amounts are exact Decimals, as of the end of the second at hand."""

    def __init__(
        self, ledger: Ledger, symbols: tuple[str, ...], book: Mapping[int, OpenOrder], cancel: Callable[[int], bool]
    ) -> None:
        self._ledger, self._book, self._cancel = ledger, book, cancel
        self._symbols = symbols

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every symbol of the run, sorted; not each has traded yet."""
        return self._symbols

    @property
    def cash(self) -> Decimal:
        """What is not invested."""
        return decimal(self._ledger.cash, MONEY_PLACES)

    @property
    def equity(self) -> Decimal:
        """Cash, and the positions at their last closes."""
        return decimal(self._ledger.equity(), MONEY_PLACES)

    @property
    def positions(self) -> Mapping[str, Decimal]:
        """What is held, by symbol; below zero where short."""
        return MappingProxyType({symbol: decimal(held, 8) for symbol, held in self._ledger.positions.items()})

    def position(self, symbol: str) -> Decimal:
        """What is held of a symbol, 0 if nothing."""
        return decimal(self._ledger.positions.get(symbol.upper(), 0), 8)

    def last_price(self, symbol: str) -> Decimal | None:
        """The symbol's last close; None before its first second."""
        close = self._ledger.closes.get(symbol.upper())
        return None if close is None else decimal(close, 8)

    @property
    def open_orders(self) -> tuple[OpenOrder, ...]:
        """The orders that wait, oldest first."""
        return tuple(self._book.values())

    def cancel(self, order: OpenOrder) -> bool:
        """Take an order back; False if it waits no more."""
        return self._cancel(order.number)
