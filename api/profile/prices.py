"""Last prices, pure: what is newer wins, and what is old is stale."""

from typing import TypeVar

import msgspec

from api.profile.decimals import PRICE_DIGITS, plain_units, shortest
from flows.domain.errors import InvalidRecord
from flows.domain.market import scaled

SECOND_MS = 1000

T = TypeVar("T")


class _SecondStat(msgspec.Struct):
    """Of `{"symbol":"BTCUSDT","timestamp":1723161255000,…,"close":"61837.64000000",…,"revision":0}`, what is needed."""

    timestamp: int
    close: str
    revision: int


class _MiniTicker(msgspec.Struct):
    """Of `{"event_time":1723161255123,"symbol":"BTCUSDT","close_price":"61837.64000000",…}`, what is needed."""

    event_time: int
    close_price: str


_second_stats = msgspec.json.Decoder(_SecondStat)
_minitickers = msgspec.json.Decoder(_MiniTicker)


class Quote:
    """The last price of one symbol, shared by everybody who holds it.

    `price` is in 10^-digits units with as few digits as it has, None until one is known; `text` is the same in plain
    notation. `as_of_ms` is the end of the price's second, 0 while the price is a miniticker's. `stale` is what the last
    `check_age` found.
    """

    __slots__ = ("_known_until_ms", "_order", "as_of_ms", "digits", "price", "stale", "symbol", "text")

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.price: int | None = None
        self.digits = 0
        self.text = ""
        self.as_of_ms = 0
        self.stale = False
        self._order: tuple[int, int] | None = None  # (timestamp, revision) of the SecondStat
        self._known_until_ms = 0

    @property
    def traded(self) -> bool:
        """Is the price a trade's, so that minitickers count no more?"""
        return self._order is not None

    def apply_second_stat(self, json: bytes) -> bool:
        """Take a SecondStat's close if it is newer by (timestamp, revision). Raises InvalidRecord."""
        stat = _decoded(_second_stats, json)
        order = (stat.timestamp, stat.revision)
        if self._order is not None and order <= self._order:
            return False
        self._set(stat.close, stat.timestamp + SECOND_MS)
        self._order, self.as_of_ms = order, stat.timestamp + SECOND_MS
        return True

    def apply_miniticker(self, json: bytes) -> bool:
        """Take a miniticker's close if it is newer and there was no trade yet. Raises InvalidRecord."""
        ticker = _decoded(_minitickers, json)
        if self.traded or ticker.event_time <= self._known_until_ms:
            return False
        self._set(ticker.close_price, ticker.event_time)
        return True

    def apply_close(self, close: str, timestamp: int) -> None:
        """Take the close of the second that begins then, whatever is known. Raises InvalidRecord."""
        self._set(close, timestamp + SECOND_MS)
        self._order, self.as_of_ms = (timestamp, 0), timestamp + SECOND_MS

    def stale_from(self, stale_after_ms: int) -> int:
        """When it will be too old."""
        return self._known_until_ms + stale_after_ms + 1

    def check_age(self, now_ms: int, stale_after_ms: int) -> bool:
        """Is it now too old, or no more? Gives whether that has changed."""
        before, self.stale = self.stale, self.price is not None and now_ms - self._known_until_ms > stale_after_ms
        return self.stale != before

    def _set(self, price: str, known_until_ms: int) -> None:
        self.price, self.digits = shortest(scaled(price), PRICE_DIGITS)
        self.text = plain_units(self.price, self.digits)
        self._known_until_ms = known_until_ms


def _decoded(decoder: msgspec.json.Decoder[T], json: bytes) -> T:
    try:
        return decoder.decode(json)
    except msgspec.DecodeError as error:
        raise InvalidRecord(str(error)) from error
