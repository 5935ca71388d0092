"""Orders, and what becomes of them."""

from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, Self

from flows.backtest.errors import StrategyError
from flows.backtest.units import FILL_PLACES, LARGEST, MONEY_PLACES, plain, scaled_down

Amount = Decimal | str | int
Side = Literal["buy", "sell"]
Kind = Literal["market", "limit"]


@dataclass(frozen=True, slots=True)
class Order:
    """What a strategy asks for. Make one by `Order.buy` or `Order.sell`.

    `quantity`, `quote` and `limit` are integers of 1e-8 units; of the first two one is None.
    """

    symbol: str
    side: Side
    quantity: int | None
    quote: int | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        sizes = [size for size in (self.quantity, self.quote) if size is not None]
        amounts = sizes if self.limit is None else [*sizes, self.limit]
        if (
            not isinstance(self.symbol, str)
            or self.side not in ("buy", "sell")
            or len(sizes) != 1
            or any(type(amount) is not int or not 0 <= amount <= LARGEST for amount in amounts)
            or (self.limit is not None and (self.limit == 0 or self.quote is not None))
        ):
            raise StrategyError(f"no order: {self!r}; make one by Order.buy or Order.sell")

    @classmethod
    def buy(cls, symbol: str, quantity: Amount | None = None, *, quote: Amount | None = None,
            limit: Amount | None = None) -> Self:  # fmt: skip
        """Buy a quantity, or (market orders only) what `quote` pays for, fee included, and no more than cash does.

        With `limit` it is filled at that price or a better one; without, at the market. A quantity is cut to 8
        decimals, a limit rounded in the order's favour. Raises StrategyError.
        """
        return cls._of("buy", symbol, quantity, quote, limit)

    @classmethod
    def sell(cls, symbol: str, quantity: Amount | None = None, *, quote: Amount | None = None,
             limit: Amount | None = None) -> Self:  # fmt: skip
        """Sell a quantity, or (market orders only) what is worth `quote`, and no more than is held."""
        return cls._of("sell", symbol, quantity, quote, limit)

    @classmethod
    def _of(cls, side: Side, symbol: str, quantity: Amount | None, quote: Amount | None, limit: Amount | None) -> Self:
        if (quantity is None) == (quote is None):
            raise StrategyError(f"an order to {side} {symbol} has either a quantity or a quote")
        if quote is not None and limit is not None:
            raise StrategyError(f"an order to {side} {symbol} for a quote can't have a limit")
        size = scaled_down(quantity if quote is None else quote, 8, f"{side} {symbol}: size")  # type: ignore[arg-type]
        if size < 0:
            raise StrategyError(f"an order to {side} {symbol} has a negative size: {plain(size, 8)}")
        price = None if limit is None else scaled_down(limit, 8, f"{side} {symbol}: limit", up=side == "sell")
        if price is not None and price <= 0:
            raise StrategyError(f"an order to {side} {symbol} has the limit {limit}")
        return cls(symbol.upper(), side, size if quote is None else None, None if quote is None else size, price)

    @property
    def kind(self) -> Kind:
        """Market, or limit."""
        return "market" if self.limit is None else "limit"

    def size(self) -> str:
        """For messages: how much of what."""
        if self.quantity is not None:
            return plain(self.quantity, 8)
        return f"{plain(self.quote or 0, 8)} worth"

    def __str__(self) -> str:
        limit = "" if self.limit is None else f" at {plain(self.limit, 8)}"
        return f"{self.side} {self.size()} of {self.symbol}{limit}"


@dataclass(frozen=True, slots=True)
class OpenOrder:
    """An order that waits, in the order of `number`; `placed_ms` is the second whose end it was given at."""

    number: int
    placed_ms: int
    order: Order


@dataclass(frozen=True, slots=True)
class Fill:
    """An order carried out in the second `timestamp`; price in 1e-16, quantity in 1e-8, fee in 1e-32 units."""

    timestamp: int
    number: int
    placed_ms: int
    symbol: str
    side: Side
    kind: Kind
    quantity: int
    price: int
    fee: int

    def as_json(self) -> dict[str, str | int]:
        """As the results list it."""
        return {
            "timestamp": self.timestamp,
            "symbol": self.symbol,
            "side": self.side,
            "type": self.kind,
            "quantity": plain(self.quantity, 8),
            "price": plain(self.price, FILL_PLACES),
            "fee": plain(self.fee, MONEY_PLACES),
            "order": self.number,
            "ordered_at": self.placed_ms,
        }


@dataclass(frozen=True, slots=True)
class Refusal:
    """An order that was not carried out, and why."""

    timestamp: int
    order: Order
    reason: str
