"""Columns of decimals, taken at once, against each value read by itself."""

from decimal import Context, Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.connectors.clickhouse_native import Column
from flows.connectors.json_columns import JsonColumns

EXACT = Context(prec=100)


class Amount(msgspec.Struct):
    amount: str


@pytest.mark.parametrize(
    ("kind", "digits", "scale"), [("Decimal64", 18, 8), ("Decimal128", 38, 8), ("Decimal256", 76, 16)]
)
def test_columns_of_decimals_are_exact_to_the_ends_of_their_range(kind, digits, scale):
    columns = JsonColumns(Amount, [Column("amount", f"{kind}({scale})")])
    ends = [10**n + d for n in range(digits) for d in (-1, 0)] + [10**digits - 1, 2**63 - 1, 2**63, 2**64]
    ends = [n for n in ends if n < 10**digits]

    @given(
        st.lists(st.integers(0, 10**digits - 1) | st.integers(0, 10**18 - 1) | st.sampled_from(ends), min_size=2),
        st.data(),
    )
    def check(numbers, data):
        signs = data.draw(st.lists(st.sampled_from([1, -1]), min_size=len(numbers), max_size=len(numbers)))
        texts = [
            f"{'-' if sign < 0 else ''}{number // 10**scale}.{number % 10**scale:0{scale}d}"
            for number, sign in zip(numbers, signs, strict=True)
        ]
        decoded = columns.decode([msgspec.json.encode(Amount(text)) for text in texts])
        assert decoded.rejected == []
        assert decoded.columns == [[int(Decimal(text).scaleb(scale, EXACT)) for text in texts]]

    check()
