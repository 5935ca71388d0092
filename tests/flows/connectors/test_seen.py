"""The cache of keys against a plain set."""

from collections.abc import Collection

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.connectors.seen import KEPT_SLICES, SLICE_MS, Key, Seen


class Table:
    """A table's keys, and which slices were asked for."""

    def __init__(self) -> None:
        self.keys: set[Key] = set()
        self.asked: list[set[int]] = []

    def load(self, slices: Collection[int]) -> list[tuple[str, list[int]]]:
        self.asked.append(set(slices))
        return [(name, [time]) for name, time in self.keys if time // SLICE_MS in slices]


keys = st.tuples(st.sampled_from("ab"), st.integers(0, 40 * SLICE_MS) | st.integers(0, 50))


@given(st.lists(st.lists(keys, min_size=1, max_size=20), max_size=20), st.sets(keys))
def test_exact_at_any_distance(batches: list[list[Key]], stored: set[Key]) -> None:
    table = Table()
    table.keys |= stored
    seen = Seen(table.load)
    for batch in batches:
        seen.cover(time for _, time in batch)
        for key in batch:
            assert (key in seen) == (key in table.keys)
            table.keys.add(key)
            seen.add(key)


def test_a_slice_is_read_once_while_it_is_kept() -> None:
    table = Table()
    seen = Seen(table.load)
    for _ in range(3):
        seen.cover([0, 1, SLICE_MS])
    assert table.asked == [{0, 1}]

    for index in range(2, 2 + KEPT_SLICES):
        seen.cover([index * SLICE_MS])
    seen.cover([0])
    assert table.asked[-1] == {0}


def test_forgetting_reads_again() -> None:
    table = Table()
    seen = Seen(table.load)
    seen.cover([5])
    table.keys.add(("a", 5))
    assert ("a", 5) not in seen
    seen.forget()
    seen.add(("a", 6))  # of a slice that is not known: no effect
    seen.cover([5])
    assert ("a", 5) in seen
    assert ("a", 6) not in seen


def test_a_failed_load_changes_nothing() -> None:
    failing = True

    def load(_slices: Collection[int]) -> list[tuple[str, list[int]]]:
        if failing:
            raise ConnectionError
        return [("a", [1])]

    seen = Seen(load)
    with pytest.raises(ConnectionError):
        seen.cover([1])
    failing = False
    seen.cover([1])
    assert ("a", 1) in seen
