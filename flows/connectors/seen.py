"""Which (name, time) pairs a table already holds, known in slices of event time that are read on first use."""

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable

SLICE_MS = 10 * 60 * 1000
KEPT_SLICES = 12  # two hours: an hour back from the newest, and room for partitions that are not equally far

Key = tuple[str, int]
Load = Callable[[Collection[int]], Iterable[tuple[str, list[int]]]]


class Seen:
    """A cache of a table's keys that is exact at any distance: a slice that was dropped is read again when needed.

    `load(slices)` gives, for each name, the times of the table's rows within these slices (slice = time // SLICE_MS).
    Takes 8 bytes a key.
    """

    def __init__(self, load: Load) -> None:
        self._load = load
        self._slices: OrderedDict[int, dict[str, array[int]]] = OrderedDict()

    def forget(self) -> None:
        """Know nothing: someone else may have written to the table."""
        self._slices.clear()

    def cover(self, times: Iterable[int]) -> None:
        """Make `in` and `add` exact for these times. Raises what `load` raises."""
        wanted = {time // SLICE_MS for time in times}
        missing = wanted - self._slices.keys()
        if missing:
            read: dict[int, dict[str, array[int]]] = {index: {} for index in missing}
            for name, found in self._load(missing):
                for time in sorted(found):
                    _insert(read[time // SLICE_MS], name, time)
            self._slices.update(read)
        for index in wanted:
            self._slices.move_to_end(index)
        while len(self._slices) > max(KEPT_SLICES, len(wanted)):
            self._slices.popitem(last=False)

    def __contains__(self, key: Key) -> bool:
        name, time = key
        times = self._slices[time // SLICE_MS].get(name)
        if times is None:
            return False
        at = bisect_left(times, time)
        return at < len(times) and times[at] == time

    def add(self, key: Key) -> None:
        """Note a row that the table now holds; in a slice that is not known there is nothing to note."""
        name, time = key
        known = self._slices.get(time // SLICE_MS)
        if known is not None:
            _insert(known, name, time)


def _insert(known: dict[str, "array[int]"], name: str, time: int) -> None:
    times = known.setdefault(name, array("q"))
    at = bisect_left(times, time)
    if at == len(times) or times[at] != time:
        times.insert(at, time)
