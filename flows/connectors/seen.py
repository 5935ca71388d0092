"""Which (name, time) pairs a table already holds, known in slices of event time that are read on first use."""

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence

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

    def fresh(self, keys: Sequence[Key]) -> list[bool]:
        """For each key, whether the table holds it not, nor an earlier key of these is the same.

        Raises what `load` raises.
        """
        self._cover({time // SLICE_MS for _, time in keys})
        slices = self._slices
        is_fresh = []
        for name, time in keys:
            times = slices[time // SLICE_MS].get(name)
            is_fresh.append(times is None or time > times[-1] or not _holds(times, time))
        if len(set(keys)) < len(keys):
            earlier: set[Key] = set()
            for index, key in enumerate(keys):
                is_fresh[index] = is_fresh[index] and key not in earlier
                earlier.add(key)
        return is_fresh

    def add(self, keys: Iterable[Key]) -> None:
        """Note rows that the table now holds; in a slice that is not known there is nothing to note."""
        slices = self._slices
        for name, time in keys:
            known = slices.get(time // SLICE_MS)
            if known is not None:
                times = known.get(name)
                if times is None:
                    known[name] = array("q", (time,))
                elif time > times[-1]:
                    times.append(time)
                elif not _holds(times, time):
                    times.insert(bisect_left(times, time), time)

    def _cover(self, wanted: set[int]) -> None:
        """Know these slices."""
        missing = wanted - self._slices.keys()
        if missing:
            read: dict[int, dict[str, set[int]]] = {index: {} for index in missing}
            for name, found in self._load(missing):
                for time in found:
                    read[time // SLICE_MS].setdefault(name, set()).add(time)
            for index, by_name in read.items():
                self._slices[index] = {name: array("q", sorted(times)) for name, times in by_name.items()}
        for index in wanted:
            self._slices.move_to_end(index)
        while len(self._slices) > max(KEPT_SLICES, len(wanted)):
            self._slices.popitem(last=False)


def _holds(times: "array[int]", time: int) -> bool:
    at = bisect_left(times, time)
    return at < len(times) and times[at] == time
