"""What a portfolio is worth, and the push that says so; pure, and exact to the last digit."""

import json
from collections.abc import Iterable
from decimal import Decimal

from api.profile.decimals import AMOUNT_DIGITS, FRACTION_DIGITS, plain, plain_units, units
from api.profile.prices import Quote


class Holding:
    """A coin: its quantity in 1e-18 units, and the quote it shares with everybody who holds it."""

    __slots__ = ("_head", "quantity", "quote")

    def __init__(self, quantity: Decimal, quote: Quote) -> None:
        self.quantity = units(quantity, FRACTION_DIGITS)
        self.quote = quote
        self._head = f'{{"Symbol":{_quoted(quote.symbol)},"Quantity":"{plain(quantity)}","Price":'

    def render(self) -> tuple[int, str]:
        """(quantity × price in 1e-26 units, the coin as JSON)."""
        price = self.quote.price
        if price is None:
            return 0, f'{self._head}null,"Total":null}}'
        amount = self.quantity * price
        return amount, f'{self._head}"{self.quote.text}","Total":"{plain_units(amount, AMOUNT_DIGITS)}"}}'


class Push:
    """The state of a portfolio as JSON, but for the number each connection gives it."""

    __slots__ = ("_after", "_before")

    def __init__(self, user: str, holdings: Iterable[Holding]) -> None:
        """`user` is the JSON that begins every push of this user; see `user_head`."""
        total, as_of_ms, coins, stale = 0, 0, [], []
        for holding in holdings:
            amount, coin = holding.render()
            quote = holding.quote
            total += amount
            as_of_ms = max(as_of_ms, quote.as_of_ms)
            coins.append(coin)
            if quote.stale:
                stale.append(_quoted(quote.symbol))
        self._before = (
            f'{user}"TotalValue":"{plain_units(total, AMOUNT_DIGITS)}","Coins":[{",".join(coins)}],"Sequence":'
        )
        self._after = f',"AsOf":{as_of_ms},"Stale":[{",".join(stale)}]}}'

    def numbered(self, sequence: int) -> str:
        """The message."""
        return f"{self._before}{sequence}{self._after}"

    def same_as(self, other: "Push") -> bool:
        """Would it say the same?"""
        return self._before == other._before and self._after == other._after


def user_head(user_id: str, name: str) -> str:
    """What every push of a user begins with."""
    return f'{{"UserID":"{user_id}","UserName":{_quoted(name)},'


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
