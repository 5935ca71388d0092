"""The whole-market miniticker: a rolling 24 h window, not a candle."""

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal

from flows.domain.errors import InvalidRecord
from flows.domain.market import decimal_8, scaled

DECIMAL64_LIMIT = 10**18  # ClickHouse's Decimal64(8) holds 18 digits
_EXACT = Context(prec=60, rounding=ROUND_HALF_EVEN)


@dataclass(frozen=True, slots=True)
class MiniTicker:
    """Prices in 1e-8 units; `event_time` in ms.

    Wire sample:
    `{"e":"24hrMiniTicker","E":1790000000123,"s":"BTCUSDT","c":"64000.1","o":"63000","h":"65000","l":"62000"}`
    """

    symbol: str
    event_time: int
    close: int
    open: int
    high: int
    low: int

    @classmethod
    def of(cls, symbol: str, event_time: int, close: str, open_: str, high: str, low: str) -> "MiniTicker":
        """From the wire's texts. Raises InvalidRecord, also for a price that `Decimal64(8)` can't hold."""
        if not symbol or not 0 < event_time < 1 << 53:
            raise InvalidRecord(f"s is {symbol!r}, E is {event_time}")
        prices = [scaled(text) for text in (close, open_, high, low)]
        if max(prices) >= DECIMAL64_LIMIT:
            raise InvalidRecord(f"price out of range: {decimal_8(max(prices))}")
        ticker = cls(symbol, event_time, *prices)
        if abs(ticker.change_percent) >= DECIMAL64_LIMIT:
            raise InvalidRecord(f"change from {open_} to {close} is out of range in percent")
        return ticker

    @property
    def message_id(self) -> str:
        """Deterministic: the same frame has the same id however often it is delivered."""
        return f"{self.symbol}-{self.event_time}"

    @property
    def change_price(self) -> int:
        """close − open."""
        return self.close - self.open

    @property
    def change_percent(self) -> int:
        """100·(close − open)/open in 1e-8 units, rounded half-even; 0 where open is 0."""
        if self.open == 0:
            return 0
        exact = _EXACT.divide(Decimal(self.change_price * 100 * 10**8), Decimal(self.open))
        return int(exact.to_integral_value(ROUND_HALF_EVEN))
