"""Which ids of one symbol are missing from the log: pure, one trade at a time as the log has them.

Ids `a` are owed without a break from the first trade of a subscription to its end. A hole that is still there after
GRACE_S (streams reorder a little) becomes a row of the gap ledger: open, then backfilled or lost. Contiguous `a`
whose raw ids f/l do not join is a row that is lost at once: nobody can fetch what lies between. A long silence with
contiguous ids is no gap.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

GRACE_S = 0.2
NO_ID = -1  # f and l of the exchange's invalid rows
State = Literal["open", "backfilled", "lost"]


@dataclass(frozen=True, slots=True)
class Gap:
    """A row of the ledger: aggregate ids [first, last] of a symbol, and what became of them.

    `after_ms` and `before_ms` are the trade times T around the hole, None where unknown: the seconds it may touch.
    A break of raw ids has first = last = the aggregate trade that does not join the one before.
    """

    symbol: str
    first: int
    last: int
    state: State
    reason: str
    after_ms: int | None = None
    before_ms: int | None = None


@dataclass(slots=True)
class Claim:
    """What a ledger row was opened for, until all of it is settled."""

    gap: Gap
    lost: list[Gap] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Hole:
    """Ids [first, last], all missing. The raw ids and times beside it are those of its neighbours in the log."""

    first: int
    last: int
    last_trade_before: int | None
    first_trade_after: int | None
    after_ms: int | None
    before_ms: int | None
    noticed_s: float
    row: Claim | None = None  # of the ledger, once the hole is older than GRACE_S


class Continuity:
    """One symbol. `tell` gets every ledger row in the moment it begins or changes; times in s are monotonic."""

    __slots__ = ("_base", "_last_ms", "_last_trade", "_tell", "holes", "next_a", "symbol")

    def __init__(self, symbol: str, tell: Callable[[Gap], None]) -> None:
        self.symbol = symbol
        self.next_a: int | None = None  # one above the highest id of the log; None: nothing is owed yet
        self.holes: list[Hole] = []  # ascending
        self._base = 0  # from here to next_a all but the holes is in the log
        self._last_trade: int | None = None  # l of next_a - 1
        self._last_ms: int | None = None  # T of next_a - 1
        self._tell = tell

    def saw(self, a: int, first_trade: int, last_trade: int, time_ms: int, now_s: float) -> None:
        """A trade (ids a, f, l and T) was put into the log. One that was there already changes nothing."""
        first, last = (first_trade, last_trade) if first_trade != NO_ID else (None, None)
        expected = self.next_a
        if a == expected:
            self._join(a, self._last_trade, first, self._last_ms, time_ms)
        elif expected is None:
            if self._fill(a, first, last, time_ms):
                return
            self._base = a
        elif a > expected:
            self.holes.append(Hole(expected, a - 1, self._last_trade, first, self._last_ms, time_ms, now_s))
        else:
            self._fill(a, first, last, time_ms)
            return
        self.next_a, self._last_trade, self._last_ms = a + 1, last, time_ms

    def lacks(self, a: int) -> bool:
        """Whether a trade with this id would be new to the log."""
        if self.next_a is None or a >= self.next_a:
            return True
        return any(hole.first <= a <= hole.last for hole in self.holes)

    def end(self) -> None:
        """The subscription ended: what is missing already stays owed, what comes later does not."""
        self.next_a = self._last_trade = self._last_ms = None

    def skip_to(self, a: int, reason: str, before_ms: int | None = None) -> None:
        """Give up the ids from the end of the log up to `a`, which comes next."""
        if self.next_a is not None and a > self.next_a:
            self._tell(Gap(self.symbol, self.next_a, a - 1, "lost", reason, self._last_ms, before_ms))
            self.next_a, self._last_trade, self._last_ms = a, None, None

    def expire(self, now_s: float) -> list[Hole]:
        """Open rows for the holes that have outlived their grace; gives these holes."""
        expired = [hole for hole in self.holes if hole.row is None and now_s - hole.noticed_s >= GRACE_S]
        for hole in expired:
            gap = Gap(self.symbol, hole.first, hole.last, "open", "missing", hole.after_ms, hole.before_ms)
            hole.row = Claim(gap)
            self._tell(gap)
        return expired

    def lose(self, hole: Hole, reason: str) -> None:
        """Give up what is still missing of a hole that has a row."""
        assert hole.row is not None
        self.holes.remove(hole)
        hole.row.lost.append(Gap(self.symbol, hole.first, hole.last, "lost", reason, hole.after_ms, hole.before_ms))
        self._settle(hole.row)

    def restore(self, gap: Gap) -> None:
        """Take over a row of the ledger after the log's end was read back with `saw`."""
        if gap.state != "open":
            if gap.state == "lost":
                self.holes = [h for h in self.holes if not (gap.first <= h.first and h.last <= gap.last)]
            return
        row = Claim(gap)
        for hole in self.holes:
            if gap.first <= hole.first and hole.last <= gap.last:
                hole.row = row
        if self.next_a is None:
            self._owe(gap.first, gap.last, row)
        else:
            self._owe(gap.first, min(gap.last, self._base - 1), row)
            if gap.last >= self.next_a:  # the row reached Kafka, the trade after it did not
                self._owe(max(gap.first, self.next_a), gap.last, row)
                self.next_a, self._last_trade, self._last_ms = gap.last + 1, None, None
        self._settle(row)

    def _owe(self, first: int, last: int, row: Claim) -> None:
        if first <= last:
            self.holes.append(Hole(first, last, None, None, row.gap.after_ms, row.gap.before_ms, 0.0, row))
            self.holes.sort(key=lambda hole: hole.first)

    def _fill(self, a: int, first: int | None, last: int | None, time_ms: int) -> bool:
        """Take an id out of the hole it is missing from; False if there is none."""
        hole = next((hole for hole in reversed(self.holes) if hole.first <= a <= hole.last), None)
        if hole is None:
            return False
        if a == hole.first:
            self._join(a, hole.last_trade_before, first, hole.after_ms, time_ms)
        if a == hole.last:
            self._join(a + 1, last, hole.first_trade_after, time_ms, hole.before_ms)
        if hole.first == hole.last:
            self.holes.remove(hole)
            if hole.row is not None:
                self._settle(hole.row)
        elif a == hole.first:
            hole.first, hole.last_trade_before, hole.after_ms = a + 1, last, time_ms
        else:
            if a < hole.last:
                rest = replace(hole, first=a + 1, last_trade_before=last, after_ms=time_ms)
                self.holes.insert(self.holes.index(hole) + 1, rest)
            hole.last, hole.first_trade_after, hole.before_ms = a - 1, first, time_ms
        return True

    def _join(
        self, a: int, last_before: int | None, first: int | None, after_ms: int | None, before_ms: int | None
    ) -> None:
        """Report a trade `a` whose raw ids do not follow those of the trade before it."""
        if last_before is None or first is None or first == last_before + 1:
            return
        reason = f"broken f/l: {a - 1} ends with trade {last_before}, {a} begins with {first}"
        self._tell(Gap(self.symbol, a, a, "lost", reason, after_ms, before_ms))

    def _settle(self, row: Claim) -> None:
        """Tell what became of a row once no hole of it is left: one row for each part that shares a fate."""
        if any(hole.row is row for hole in self.holes):
            return
        gap, at = row.gap, row.gap.first
        for lost in sorted(row.lost, key=lambda piece: piece.first):
            if at < lost.first:
                self._tell(replace(gap, first=at, last=lost.first - 1, state="backfilled", reason="filled"))
            self._tell(lost)
            at = lost.last + 1
        if at <= gap.last:
            self._tell(replace(gap, first=at, state="backfilled", reason="filled"))
