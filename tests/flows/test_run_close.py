"""The native writers of closed seconds against the ones they stand for, up to the ends of their ranges."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.domain.packed import pack as pack_rows
from flows.domain.second_stat import SecondStat
from flows.run_close import LONGEST_JSON, LONGEST_PACKED, pack, render

POWERS = [10**n for n in range(19)]
whole = st.integers(0, 2**63 - 1) | st.sampled_from([n + d for n in POWERS for d in (-1, 0, 1)] + [2**63 - 1])
wide = (
    st.integers(0, 2**128 - 1)
    | st.integers(0, 2**80)
    | st.sampled_from([10**n + d for n in range(39) for d in (-1, 0, 1)] + [2**64 - 1, 2**64, 2**128 - 1])
)
LOW = 2**64 - 1
names = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\')  # those that a scan takes


@settings(max_examples=500, deadline=None)
@given(st.text(names, min_size=1, max_size=10), st.lists(whole, min_size=9, max_size=9), wide, wide)
def test_json_and_packed_form_are_those_of_the_record(symbol, numbers, quote, buys_quote):
    second, open_, up, down, volume, count, buys, first, more = numbers
    high, low, last = min(open_ + up, 2**63 - 1), max(open_ - down, 0), min(first + more, 2**63 - 1)
    name = symbol.encode()
    row = (open_, high, low, high, volume, quote, count, buys, buys_quote, first, last, 0)
    texts = np.zeros((1, 40), np.uint8)
    texts[0, : len(name)] = np.frombuffer(name, np.uint8)
    symbols = np.array([[len(name), 0, 0, -1]])
    sums = np.array([[0, second, open_, high, low, high, volume, count, buys, first, last, -1]])
    quotes = np.array([[quote & LOW, quote >> 64, buys_quote & LOW, buys_quote >> 64]], np.uint64)
    out, ends = np.empty(max(LONGEST_JSON, LONGEST_PACKED), np.uint8), np.empty(1, np.int64)
    length = render(texts, symbols, sums, quotes, out, ends)
    assert out[:length].tobytes() == SecondStat(symbol, second, *row).to_json()
    assert ends[0] == length
    length = pack(texts, symbols, sums, quotes, out, ends)
    assert out[:length].tobytes() == pack_rows({symbol: row})
