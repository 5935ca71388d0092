"""Single trades (`@trade` frames) grouped into aggTrades: runs of following ids with the same T, p and m.

The exchange's aggregate ids are not known, so ours are made: one more than the last, within trade ids without holes;
after a hole the first trade's id. So they ascend, are the same whenever a file is read, leave a hole where trades are
missing, and a later file's never meet an earlier one's.
"""

from collections.abc import Iterator

import msgspec

from flows.domain.errors import InvalidRecord
from flows.domain.intervals import IdIntervals
from flows.domain.market import MAX_AMOUNT, decimal_8, scaled
from flows.domain.partition import checked_trade
from flows.records import RawTrade

WAIT_MS = 100  # of event time, for more trades of a group


class Trade(msgspec.Struct, gc=False):
    """A `@trade` frame."""

    e: str
    E: int
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


_decoder = msgspec.json.Decoder(Trade)


def decode_trade(data: bytes) -> Trade:
    """A trade that is right as an aggTrade of its own. Raises InvalidRecord."""
    try:
        trade = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecord(f"not a trade: {error}") from error
    if not 0 < trade.E < 1 << 53:
        raise InvalidRecord(f"E is {trade.E}")
    checked_trade(RawTrade("aggTrade", trade.E, trade.s, trade.t, trade.p, trade.q, trade.t, trade.t, trade.T, trade.m))
    return trade


class _Group:
    __slots__ = ("agg_id", "event_time", "first", "last", "quantity", "trade")

    def __init__(self, trade: Trade, agg_id: int) -> None:
        self.trade, self.agg_id, self.event_time = trade, agg_id, trade.E
        self.first = self.last = trade.t
        self.quantity = scaled(trade.q)

    def takes(self, trade: Trade) -> bool:
        """Take a trade in, if it is the group's next one."""
        first, quantity = self.trade, self.quantity + scaled(trade.q)
        if (self.last + 1, first.T, first.p, first.m) != (trade.t, trade.T, trade.p, trade.m) or quantity >= MAX_AMOUNT:
            return False
        self.last, self.quantity = trade.t, quantity
        self.event_time = max(self.event_time, trade.E)
        return True

    def value(self) -> bytes:
        trade = self.trade
        return (
            f'{{"e":"aggTrade","E":{self.event_time},"s":{msgspec.json.encode(trade.s).decode()},"a":{self.agg_id},'
            f'"p":"{trade.p}","q":"{decimal_8(self.quantity)}","f":{self.first},"l":{self.last},"T":{trade.T},'
            f'"m":{"true" if trade.m else "false"},"M":true}}'
        ).encode()


class TradeGroups:
    """Takes trades in order; gives aggTrades, as bytes, when they are complete."""

    def __init__(self) -> None:
        self._open: dict[str, _Group] = {}
        self._ids: dict[str, tuple[int, int]] = {}  # (last trade id, last aggregate id)
        self._seen: dict[str, IdIntervals] = {}

    def add(self, trade: Trade) -> Iterator[bytes]:
        """What a trade completes; one that came before is left out."""
        if self._was_seen(trade):
            return
        while self._open and (oldest := next(iter(self._open.values()))).event_time + WAIT_MS < trade.E:
            del self._open[oldest.trade.s]
            yield oldest.value()
        group = self._open.get(trade.s)
        if group is not None:
            if group.takes(trade):
                self._ids[trade.s] = trade.t, group.agg_id
                return
            del self._open[trade.s]
            yield group.value()
        last_trade, last_agg = self._ids.get(trade.s, (-2, -2))
        agg_id = last_agg + 1 if trade.t == last_trade + 1 else trade.t
        self._ids[trade.s] = trade.t, agg_id
        self._open[trade.s] = _Group(trade, agg_id)

    def _was_seen(self, trade: Trade) -> bool:
        seen = self._seen.get(trade.s)
        if seen is None:
            self._seen[trade.s] = IdIntervals(trade.t)
            return False
        return not seen.add(trade.t)

    def rest(self) -> Iterator[bytes]:
        """What is still open, at the end of the input."""
        for group in self._open.values():
            yield group.value()
        self._open.clear()
