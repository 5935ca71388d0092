"""Figures as people read them."""

from decimal import ROUND_HALF_EVEN, Decimal

from flows.backtest.units import EXACT

PERCENT = ("total_return", "buy_and_hold_return", "max_drawdown", "volatility", "exposure")
CENTS = ("cash", "final_equity", "fees")


def shown(name: str, value: str | None) -> str:
    """A figure of a result: shares as percent, money with cents, – for none."""
    if value is None:
        return "–"
    number = Decimal(value)
    if name in PERCENT:
        return f"{rounded(number * 100, 4):,f} %"
    return f"{rounded(number, 2 if name in CENTS else 4):,f}"


def rounded(number: Decimal, places: int) -> Decimal:
    """Half to even, with exactly so many decimals."""
    return number.quantize(Decimal(1).scaleb(-places), ROUND_HALF_EVEN, EXACT)
