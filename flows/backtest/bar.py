"""A SecondStat as strategies see it."""

from decimal import Decimal

from flows.backtest.units import decimal
from flows.domain.second_stat import SecondStat


class Bar:
    """One second of one symbol; prices and amounts are exact Decimals, made when they are asked for.

    `stat` is the record itself, its prices and volumes integers of 1e-8 units: for what must be fast.
    """

    __slots__ = ("stat",)

    def __init__(self, stat: SecondStat) -> None:
        self.stat = stat

    @property
    def symbol(self) -> str:
        """As the exchange writes it: BTCUSDT."""
        return self.stat.symbol

    @property
    def timestamp(self) -> int:
        """The start of the second, in ms since the epoch."""
        return self.stat.timestamp

    @property
    def open(self) -> Decimal:
        """The price of the second's first trade."""
        return decimal(self.stat.open, 8)

    @property
    def high(self) -> Decimal:
        """The highest price."""
        return decimal(self.stat.high, 8)

    @property
    def low(self) -> Decimal:
        """The lowest price."""
        return decimal(self.stat.low, 8)

    @property
    def close(self) -> Decimal:
        """The price of the second's last trade."""
        return decimal(self.stat.close, 8)

    @property
    def volume(self) -> Decimal:
        """What was traded, in the base coin."""
        return decimal(self.stat.volume, 8)

    @property
    def quote_volume(self) -> Decimal:
        """The same in the quote coin."""
        return decimal(self.stat.quote_volume, 16)

    @property
    def taker_buy_volume(self) -> Decimal:
        """What takers bought of `volume`."""
        return decimal(self.stat.taker_buy_volume, 8)

    @property
    def taker_buy_quote_volume(self) -> Decimal:
        """What takers bought of `quote_volume`."""
        return decimal(self.stat.taker_buy_quote_volume, 16)

    @property
    def trade_count(self) -> int:
        """How many raw trades."""
        return self.stat.trade_count

    def __repr__(self) -> str:
        return f"Bar({self.symbol} {self.timestamp} {self.open} {self.high} {self.low} {self.close} {self.volume})"
