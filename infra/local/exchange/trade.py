"""The record that every part of the simulated exchange speaks of."""

from collections.abc import Iterator
from typing import NamedTuple

UNIT = 10**8  # prices and quantities are integers of 1e-8


class Trade(NamedTuple):
    """An aggregate trade: `trade_count` individual trades of one price, side and time.

    `price` and `quantity` are in 1e-8 units, times in ms. `wire`, where set, is the payload to send instead of our own.
    A `trade_count` of 0 marks the exchange's invalid rows (p = q = "0", f = l = -1), which count for nothing.
    An unlisted trade happened (candles hold it), but neither the stream nor REST's aggTrades shows it.
    """

    symbol: str
    event_ms: int
    agg_id: int
    price: int
    quantity: int
    first_id: int
    trade_count: int
    trade_ms: int
    buyer_is_maker: bool
    listed: bool = True
    wire: bytes | None = None

    @property
    def last_id(self) -> int:
        """The id of its last individual trade."""
        return self.first_id + max(self.trade_count, 1) - 1

    def pieces(self) -> Iterator[tuple[int, int]]:
        """(trade id, quantity) of each individual trade; the quantities add up exactly."""
        taken = 0
        for number in range(1, self.trade_count + 1):
            upto = self.quantity * number // self.trade_count
            yield self.first_id + number - 1, upto - taken
            taken = upto
