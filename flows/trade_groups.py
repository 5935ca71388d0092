"""Single trades (`@trade` frames) grouped into aggTrades: runs of following ids with the same T, p and m.

The exchange's aggregate ids are not known, so ours are made: one more than the last, within trade ids without holes;
after a hole the first trade's id. So they ascend, are the same whenever a file is read, leave a hole where trades are
missing, and a later file's never meet an earlier one's.
"""

from collections.abc import Iterator

import msgspec

from flows.domain.errors import InvalidRecord
from flows.domain.intervals import IdIntervals
from flows.domain.market import decimal_8, scaled

WAIT_MS = 100  # of event time, for more trades of a group


class _Trade(msgspec.Struct, gc=False):
    e: str
    E: int
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool


_decoder = msgspec.json.Decoder(_Trade)


def _decoded(data: bytes) -> _Trade:
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRecord(f"not a trade: {error}") from error


class _Group:
    __slots__ = ("agg_id", "event_time", "first", "last", "quantity", "trade")

    def __init__(self, trade: _Trade, agg_id: int) -> None:
        self.trade, self.agg_id, self.event_time = trade, agg_id, trade.E
        self.first = self.last = trade.t
        self.quantity = scaled(trade.q)

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

    def symbol(self, data: bytes) -> str:
        """Whose trade it is. Raises InvalidRecord for what is none."""
        return _decoded(data).s

    def add(self, data: bytes) -> Iterator[bytes]:
        """What a trade completes. Raises InvalidRecord for what is none; one that came before is left out."""
        trade = _decoded(data)
        scaled(trade.p)
        if not scaled(trade.q):
            raise InvalidRecord(f"q is {trade.q}")
        if self._was_seen(trade):
            return
        while self._open and (oldest := next(iter(self._open.values()))).event_time + WAIT_MS < trade.E:
            del self._open[oldest.trade.s]
            yield oldest.value()
        group = self._open.get(trade.s)
        if group is not None:
            first = group.trade
            if trade.t == group.last + 1 and (first.T, first.p, first.m) == (trade.T, trade.p, trade.m):
                group.last = trade.t
                group.event_time = max(group.event_time, trade.E)
                group.quantity += scaled(trade.q)
                self._ids[trade.s] = trade.t, group.agg_id
                return
            del self._open[trade.s]
            yield group.value()
        last_trade, last_agg = self._ids.get(trade.s, (-2, -2))
        agg_id = last_agg + 1 if trade.t == last_trade + 1 else trade.t
        self._ids[trade.s] = trade.t, agg_id
        self._open[trade.s] = _Group(trade, agg_id)

    def _was_seen(self, trade: _Trade) -> bool:
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
