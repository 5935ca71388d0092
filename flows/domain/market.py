"""Market data in the exchange's terms: amounts as scaled integers, times in ms since the epoch, UTC."""

from functools import lru_cache
from typing import Protocol

from flows.domain.errors import InvalidRecord

SCALE = 100_000_000  # prices and base quantities carry at most 8 decimals
MAX_AMOUNT = 1 << 80  # scaled; keeps sums of price × quantity within 128 bits for any real second
SECOND_MS = 1000
NO_TIME = -(1 << 63)


class LogRecord(Protocol):
    """A decoded record of the raw aggTrade log. What a kind of record does not have is None, for E NO_TIME.

    Wire sample of a trade:
    `{"e":"aggTrade","E":1790000000123,"s":"BTCUSDT","a":501,"p":"64000.10","q":"0.0150","f":900,"l":902,
    "T":1790000000120,"m":true,"M":true}`
    """

    event_type: str
    event_time: int
    symbol: str | None
    agg_id: int | None
    price: str | None
    quantity: str | None
    first_trade_id: int | None
    last_trade_id: int | None
    trade_time: int | None
    is_buyer_maker: bool | None
    on: bool | None


@lru_cache(maxsize=1 << 16)  # prices repeat: a hit is five times cheaper than parsing
def scaled(text: str) -> int:
    """A non-negative decimal in plain notation as an integer of 1e-8 units. Raises InvalidRecord."""
    whole, point, fraction = text.partition(".")
    if len(fraction) > 8:
        raise InvalidRecord(f"more than 8 decimals: {text[:60]!r}")
    digits = whole + fraction
    if not (digits.isascii() and digits.isdigit() and whole) or (point and not fraction):
        raise InvalidRecord(f"not a decimal: {text[:60]!r}")
    amount = int(digits[:40] + "0" * (8 - len(fraction)))
    if len(digits) > 40 or amount >= MAX_AMOUNT:
        raise InvalidRecord(f"out of range: {text[:60]!r}")
    return amount


def decimal_8(amount: int) -> str:
    """An integer of 1e-8 units as a decimal with exactly 8 decimals."""
    if amount < 0:
        return "-" + decimal_8(-amount)
    return f"{amount // SCALE}.{amount % SCALE:08d}"


def decimal_16(amount: int) -> str:
    """An integer of 1e-16 units as a decimal with exactly 16 decimals."""
    return f"{amount // (SCALE * SCALE)}.{amount % (SCALE * SCALE):016d}"
