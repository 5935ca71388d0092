"""Which price counts, and when it is stale."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profile_parts import second_stat

from api.profile.prices import Quote
from flows.domain.errors import InvalidRecord

SECOND = 1_790_000_000_000
events = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.integers(0, 10**12)), max_size=20)


def ticker(close: str, event_time: int) -> bytes:
    return json.dumps({"event_time": event_time, "symbol": "BTCUSDT", "close_price": close}).encode()


@given(events)
def test_the_greatest_timestamp_and_revision_wins_in_any_order(events: list[tuple[int, int, int]]) -> None:
    quote, best = Quote("btcusdt"), None
    for second, revision, price in events:
        order = (SECOND + second * 1000, revision)
        newer = best is None or order > best[0]
        text = f"{price // 10**8}.{price % 10**8:08d}"
        assert quote.apply_second_stat(second_stat("btcusdt", text, *order)) is newer
        if newer:
            best = order, price
    if best is not None:
        assert quote.price is not None
        assert (quote.price * 10 ** (8 - quote.digits), quote.as_of_ms) == (best[1], best[0][0] + 1000)


def test_minitickers_count_until_the_first_trade() -> None:
    quote = Quote("btcusdt")
    assert quote.apply_miniticker(ticker("2.50000000", SECOND))
    assert (quote.text, quote.as_of_ms, quote.traded) == ("2.5", 0, False)
    assert not quote.apply_miniticker(ticker("2.00000000", SECOND - 1))
    assert quote.apply_miniticker(ticker("3.00000000", SECOND + 1))
    assert quote.apply_second_stat(second_stat("btcusdt", "4.00000000", SECOND - 5000))
    assert not quote.apply_miniticker(ticker("5.00000000", SECOND + 9000))
    assert (quote.text, quote.traded) == ("4", True)


def test_age_counts_from_the_end_of_the_second() -> None:
    quote = Quote("btcusdt")
    assert not quote.check_age(SECOND, 60_000)
    assert not quote.stale
    quote.apply_second_stat(second_stat("btcusdt", "4.00000000", SECOND))
    assert not quote.check_age(SECOND + 61_000, 60_000)
    assert quote.check_age(SECOND + 61_001, 60_000)
    assert quote.stale
    quote.apply_second_stat(second_stat("btcusdt", "4.00000000", SECOND + 60_000))
    assert quote.check_age(SECOND + 61_002, 60_000)
    assert not quote.stale


@pytest.mark.parametrize(
    "record",
    [b"", b"{", b"[]", b"null", b'{"timestamp":1}', second_stat("x", "1.123456789", 1), second_stat("x", "-1", 1)],
)
def test_what_is_no_record_changes_nothing(record: bytes) -> None:
    quote = Quote("btcusdt")
    with pytest.raises(InvalidRecord):
        quote.apply_second_stat(record)
    with pytest.raises(InvalidRecord):
        quote.apply_miniticker(record)
    assert (quote.price, quote.traded) == (None, False)
