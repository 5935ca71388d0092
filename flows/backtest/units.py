"""Exact amounts: integers inside, Decimals for strategies, decimal strings outside.

| what | unit | why nothing is ever rounded |
| --- | --- | --- |
| quantities, prices of seconds and limits | 1e-8 | the exchange's own |
| rates in bps | 1e-4 bps = 1e-8 | at most four decimals of a basis point |
| prices of fills | 1e-16 | a price times one plus a rate |
| traded value | 1e-24 | such a price times a quantity |
| money: cash, fees, equity | 1e-32 | such a value times a rate |
"""

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, ROUND_UP, Context, Decimal, InvalidOperation

from flows.backtest.errors import BacktestError

QUANTITY_PLACES = 8
FILL_PLACES = 16
MONEY_PLACES = 32
RATE = 10**8  # a whole, in units of a rate
MONEY = 10**MONEY_PLACES
VALUE_TO_MONEY = 10**16  # from price × quantity, each in 1e-8
LARGEST = 10**26  # in units of 1e-8: 1e18, as in portfolios

EXACT = Context(prec=200, rounding=ROUND_HALF_EVEN)  # wider than any amount here
METRIC = Context(prec=34, rounding=ROUND_HALF_EVEN)  # for what is irrational: the same digits on any machine


def decimal(amount: int, places: int) -> Decimal:
    """An integer of 1e-places units as the Decimal it stands for."""
    return EXACT.scaleb(Decimal(amount), -places)


def plain(amount: int, places: int) -> str:
    """The same in plain notation, without trailing zeros."""
    sign, digits = "-" if amount < 0 else "", str(abs(amount)).zfill(places + 1)
    return sign + f"{digits[:-places]}.{digits[-places:]}".rstrip("0").rstrip(".")


def plain_ratio(ratio: Decimal, places: int = 16) -> str:
    """A Decimal rounded half to even, in plain notation without trailing zeros."""
    return plain(int(EXACT.scaleb(ratio, places).to_integral_value(ROUND_HALF_EVEN, EXACT)), places)


def scaled_down(value: Decimal | str | int, places: int, what: str, *, up: bool = False) -> int:
    """A finite amount as an integer of 1e-places units, cut (or raised) to these. Raises BacktestError."""
    if isinstance(value, float):
        raise BacktestError(f"{what}: {value!r} is a float, which is not exact; write a Decimal or a string")
    if isinstance(value, bool) or not isinstance(value, Decimal | str | int):
        raise BacktestError(f"{what}: {value!r} is no amount")
    try:
        amount = Decimal(value)
    except InvalidOperation as error:
        raise BacktestError(f"{what}: {value!r} is no decimal") from error
    if not amount.is_finite() or abs(amount) > LARGEST // RATE:
        raise BacktestError(f"{what}: {value!r} is out of range")
    return int(EXACT.scaleb(amount, places).to_integral_value(ROUND_UP if up else ROUND_DOWN, EXACT))


def rate(bps: Decimal | str | int, what: str) -> int:
    """Basis points, 0 to 10,000 with at most four decimals, as a rate in 1e-8. Raises BacktestError."""
    units = scaled_down(bps, 4, what)
    if not 0 <= units <= RATE or decimal(units, 4) != Decimal(bps):
        raise BacktestError(f"{what}: {bps} is not between 0 and 10000 with at most four decimals")
    return units
