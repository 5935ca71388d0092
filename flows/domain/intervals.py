"""The ids seen of one symbol as a set of intervals: duplicates and holes in one structure."""

from bisect import bisect_right


class IdIntervals:
    """Half-open intervals of ids, ascending and never touching; the newest one apart, as nearly all ids extend it.

    Its size is the number of holes, not the number of ids.
    """

    __slots__ = ("_ends", "_starts", "end", "start", "unowed")

    def __init__(self, first: int) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.start, self.end = first, first + 1
        self.unowed = 0  # breaks in continuity that no one owes us, since the symbol was not subscribed

    def add(self, number: int) -> bool:
        """Add an id; False if it was there already."""
        if number >= self.end:
            if number == self.end:
                self.end += 1
            else:
                self._starts.append(self.start)
                self._ends.append(self.end)
                self.start, self.end = number, number + 1
            return True
        if number >= self.start:
            return False
        if number == self.start - 1:
            self.start = number
            if self._ends and self._ends[-1] == number:
                self._ends.pop()
                self.start = self._starts.pop()
            return True
        return self._add_older(number)

    def extend(self, first: int, after: int) -> None:
        """Add the ids from `first` up to before `after`; none of them is below `end`."""
        if first > self.end:
            self._starts.append(self.start)
            self._ends.append(self.end)
            self.start = first
        self.end = after

    def _add_older(self, number: int) -> bool:
        starts, ends = self._starts, self._ends
        at = bisect_right(starts, number)  # the interval before `at` is the only one that can hold it
        if at and number < ends[at - 1]:
            return False
        joins_left = at > 0 and ends[at - 1] == number
        joins_right = at < len(starts) and starts[at] == number + 1
        if joins_left and joins_right:
            ends[at - 1] = ends[at]
            del starts[at], ends[at]
        elif joins_left:
            ends[at - 1] = number + 1
        elif joins_right:
            starts[at] = number
        else:
            starts.insert(at, number)
            ends.insert(at, number + 1)
        return True

    @property
    def holes(self) -> int:
        """How many runs of ids are missing between the first and the last seen, owed or not."""
        return len(self._starts)

    def intervals(self) -> list[tuple[int, int]]:
        """All intervals as (first id, id after the last), ascending."""
        return [*zip(self._starts, self._ends, strict=True), (self.start, self.end)]

    @classmethod
    def of(cls, intervals: list[tuple[int, int]], unowed: int = 0) -> "IdIntervals":
        """The set that `intervals()` described."""
        ids = cls(intervals[-1][0])
        ids.end = intervals[-1][1]
        ids._starts = [start for start, _ in intervals[:-1]]
        ids._ends = [end for _, end in intervals[:-1]]
        ids.unowed = unowed
        return ids
