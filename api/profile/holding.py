"""What a portfolio holds of one coin."""

from decimal import Decimal
from typing import NamedTuple


class Holding(NamedTuple):
    """A symbol (lowercase) and how much of it, never negative."""

    symbol: str
    quantity: Decimal
