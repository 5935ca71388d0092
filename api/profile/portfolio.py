"""What a portfolio is worth, and the push that says so; pure, and exact to the last digit."""

import copy
import json
from collections.abc import Iterable
from decimal import Decimal

from api.profile.decimals import AMOUNT_DIGITS, FRACTION_DIGITS, plain, plain_units, shortest, units
from api.profile.prices import Quote

_SCALE = tuple(10 ** (AMOUNT_DIGITS - digits) for digits in range(AMOUNT_DIGITS + 1))
_REPLAY = ',"Replay":true'


class Holding:
    """A coin: its quantity, and the quote it shares with everybody who holds it."""

    __slots__ = ("_digits", "_head", "_quantity", "quote")

    def __init__(self, quantity: Decimal, quote: Quote) -> None:
        # Short integers are quicker to multiply and to print; most quantities have few digits.
        self._quantity, self._digits = shortest(units(quantity, FRACTION_DIGITS), FRACTION_DIGITS)
        self.quote = quote
        self._head = f'{{"Symbol":{_quoted(quote.symbol)},"Quantity":"{plain(quantity)}","Price":'

    def priced_by(self, quote: Quote) -> "Holding":
        """The same coin at the price of another quote of its symbol."""
        other = copy.copy(self)
        other.quote = quote
        return other

    def render(self) -> tuple[int, str]:
        """(quantity × price in 1e-26 units, the coin as JSON)."""
        quote = self.quote
        if quote.price is None:
            return 0, f'{self._head}null,"Total":null}}'
        amount, digits = self._quantity * quote.price, self._digits + quote.digits
        coin = f'{self._head}"{quote.text}","Total":"{plain_units(amount, digits)}"}}'
        return amount * _SCALE[digits], coin


class Push:
    """The state of a portfolio as JSON in UTF-8, but for the number each connection gives it."""

    __slots__ = ("_after", "_before")

    def __init__(self, user: str, holdings: Iterable[Holding], *, is_replay: bool = False) -> None:
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
        value = plain_units(total, AMOUNT_DIGITS)
        # A token's name can hold half a surrogate pair, which has no UTF-8.
        self._before = f'{user}"TotalValue":"{value}","Coins":[{",".join(coins)}],"Sequence":'.encode(
            "utf-8", "replace"
        )
        self._after = f',"AsOf":{as_of_ms},"Stale":[{",".join(stale)}]{_REPLAY if is_replay else ""}}}'.encode()

    def numbered(self, sequence: int) -> bytes:
        """The message."""
        return b"%b%d%b" % (self._before, sequence, self._after)

    def same_as(self, other: "Push") -> bool:
        """Would it say the same?"""
        return self._before == other._before and self._after == other._after


def user_head(user_id: str, name: str) -> str:
    """What every push of a user begins with."""
    return f'{{"UserID":"{user_id}","UserName":{_quoted(name)},'


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
