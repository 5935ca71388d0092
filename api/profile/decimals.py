"""Exact amounts: decimal text in and out, sums and products without rounding."""

import re
from decimal import Context, Decimal, Inexact

INTEGER_DIGITS = FRACTION_DIGITS = 18
PRICE_DIGITS = 8  # the exchange's prices have no more
AMOUNT_DIGITS = FRACTION_DIGITS + PRICE_DIGITS
QUANTITY_PATTERN = rf"^[+-]?[0-9]{{1,{INTEGER_DIGITS}}}(\.[0-9]{{1,{FRACTION_DIGITS}}})?$"
_QUANTITY = re.compile(QUANTITY_PATTERN[1:-1])
_EXACT = Context(prec=80, traps=[Inexact])
_LIMIT = Decimal(10) ** INTEGER_DIGITS


def parse_quantity(text: str) -> Decimal:
    """The number of a decimal string in plain notation. Raises ValueError for anything else."""
    if not _QUANTITY.fullmatch(text):
        raise ValueError(
            f"must be a decimal string like 1.5 with up to {INTEGER_DIGITS} integer "
            f"and {FRACTION_DIGITS} fraction digits"
        )
    return Decimal(text)


def add(quantity: Decimal, change: Decimal) -> Decimal:
    """Their exact sum. Raises ValueError when it is below zero or has too many integer digits."""
    total = _EXACT.add(quantity, change)
    if total < 0:
        raise ValueError(f"only {plain(quantity)} held")
    if total >= _LIMIT:
        raise ValueError(f"the quantity would have more than {INTEGER_DIGITS} integer digits")
    return total


def plain(number: Decimal) -> str:
    """Plain notation without exponent or trailing zeros: "10.0" is "10"."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def units(number: Decimal, digits: int) -> int:
    """`number` in units of 10^-digits. Raises decimal.Inexact if it has more fraction digits."""
    return int(_EXACT.to_integral_exact(_EXACT.scaleb(number, digits)))


def plain_units(value: int, digits: int) -> str:
    """Plain notation of a non-negative number of 10^-digits units, without trailing zeros."""
    text = str(value)
    if digits == 0:
        return text
    if len(text) <= digits:
        text = text.zfill(digits + 1)
    return f"{text[:-digits]}.{text[-digits:]}".rstrip("0").rstrip(".")


def shortest(value: int, digits: int) -> tuple[int, int]:
    """The same number with the fewest fraction digits: (150, 2) is (15, 1)."""
    while digits and value % 10 == 0:
        value, digits = value // 10, digits - 1
    return value, digits
