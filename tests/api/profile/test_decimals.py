"""Exact amounts, against what Decimal and str say."""

import re
from decimal import Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.profile.decimals import QUANTITY_PATTERN, add, parse_quantity, plain, plain_units, units

WIDE = Context(prec=200)
quantities = st.integers(0, 10**36 - 1).map(lambda value: WIDE.scaleb(Decimal(value), -18))


@given(st.from_regex(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", fullmatch=True).filter(str.isascii))
def test_a_decimal_string_is_read_exactly(text: str) -> None:
    assert parse_quantity(text) == Decimal(text)
    assert re.search(QUANTITY_PATTERN, text)


@given(st.text(max_size=50))
def test_nothing_else_is_read(text: str) -> None:
    try:
        number = parse_quantity(text)
    except ValueError:
        return
    assert re.fullmatch(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?", text, re.ASCII)
    assert number == Decimal(text)


@given(quantities)
def test_plain_notation_is_the_shortest_that_is_exact(number: Decimal) -> None:
    text = plain(number)
    assert Decimal(text) == number
    assert re.fullmatch(r"(0|[1-9][0-9]*)(\.[0-9]*[1-9])?", text)
    assert plain_units(units(number, 18), 18) == text


@pytest.mark.parametrize(
    ("number", "text"), [("10.0", "10"), ("0E-18", "0"), ("1E+3", "1000"), ("1E-18", "0." + "0" * 17 + "1")]
)
def test_plain_notation_of(number: str, text: str) -> None:
    assert plain(Decimal(number)) == text


@given(quantities, quantities)
def test_sums_are_exact_or_refused(held: Decimal, change: Decimal) -> None:
    exact = WIDE.add(held, change)
    if exact >= 10**18:
        with pytest.raises(ValueError, match="integer digits"):
            add(held, change)
    else:
        assert add(held, change) == exact


@given(quantities, quantities)
def test_differences_are_exact_or_refused(held: Decimal, change: Decimal) -> None:
    if change > held:
        with pytest.raises(ValueError, match="held"):
            add(held, change.copy_negate())
    else:
        assert add(held, change.copy_negate()) == WIDE.subtract(held, change)
