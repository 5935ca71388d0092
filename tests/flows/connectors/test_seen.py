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
        expected = []
        for key in batch:
            expected.append(key not in table.keys)
            table.keys.add(key)
        table.keys -= (new := set(batch) - stored)  # the table is read before the batch is in it
        assert seen.fresh(batch) == expected
        seen.add(key for key, is_fresh in zip(batch, expected, strict=True) if is_fresh)
        table.keys |= new
        stored |= new


def test_a_slice_is_read_once_while_it_is_kept() -> None:
    table = Table()
    seen = Seen(table.load)
    for _ in range(3):
        seen.fresh([("a", time) for time in (0, 1, SLICE_MS)])
    assert table.asked == [{0, 1}]

    for index in range(2, 2 + KEPT_SLICES):
        seen.fresh([("a", index * SLICE_MS)])
    seen.fresh([("a", 0)])
    assert table.asked[-1] == {0}


def test_forgetting_reads_again() -> None:
    table = Table()
    seen = Seen(table.load)
    assert seen.fresh([("a", 5)]) == [True]
    table.keys.add(("a", 5))
    assert seen.fresh([("a", 5)]) == [True]
    seen.forget()
    seen.add([("a", 6)])  # of a slice that is not known: no effect
    assert seen.fresh([("a", 5), ("a", 6)]) == [False, True]


def test_a_failed_load_changes_nothing() -> None:
    failing = True

    def load(_slices: Collection[int]) -> list[tuple[str, list[int]]]:
        if failing:
            raise ConnectionError
        return [("a", [1])]

    seen = Seen(load)
    with pytest.raises(ConnectionError):
        seen.fresh([("a", 1)])
    failing = False
    assert seen.fresh([("a", 1)]) == [False]
