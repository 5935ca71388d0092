"""What may be asked of the exchange, by a clock of the test's own."""

from hypothesis import given
from hypothesis import strategies as st

from flows.venues.binance.budget import (
    ATTEMPTS,
    ATTEMPTS_WINDOW_S,
    SHARE,
    SlidingBudget,
    WeightBudget,
    connection_attempts,
)


def spend_all(budget, amounts, pauses):
    """(time, amount) of each, sent as soon as the budget lets it."""
    now_s, spent = 0.0, []
    for amount, pause in zip(amounts, pauses, strict=True):
        now_s += pause
        while delay_s := budget.delay_s(amount, now_s):
            now_s += delay_s
        budget.spend(amount, now_s)
        spent.append((now_s, amount))
    return spent


@given(st.data())
def test_no_window_holds_more_than_the_limit(data):
    amounts = data.draw(st.lists(st.integers(1, 20), min_size=1, max_size=60))
    pauses = data.draw(st.lists(st.sampled_from([0.0, 0.5, 7.0]), min_size=len(amounts), max_size=len(amounts)))
    spent = spend_all(SlidingBudget(50, 60.0), amounts, pauses)
    for begin_s, _ in spent:
        assert sum(amount for at_s, amount in spent if begin_s <= at_s < begin_s + 60.0 - 1e-6) <= 50


def test_connection_attempts_stay_below_the_exchanges_limit():
    budget = connection_attempts()
    spent = spend_all(budget, [1] * (ATTEMPTS + 10), [0.01] * (ATTEMPTS + 10))
    assert spent[ATTEMPTS - 1][0] < 10
    assert spent[ATTEMPTS][0] >= ATTEMPTS_WINDOW_S
    assert ATTEMPTS < 300


def test_the_exchanges_own_limit_is_learnt_and_never_more_than_6000_is_used():
    budget = WeightBudget()
    for told, used in ((1200, 1200), (100_000, 6000)):
        budget.set_limit(told)
        assert not budget.delay_s(int(used * SHARE), 0.0)
        budget.spend(1, 0.0)
        assert budget.delay_s(int(used * SHARE), 0.0) > 0
        budget.delay_s(1, 100.0)
        assert budget.used == 0
        budget = WeightBudget()


def test_what_others_at_this_address_used_counts_until_the_minute_is_over():
    budget = WeightBudget()
    budget.reported(5300, 32, now_s=10.0, left_of_minute_s=21.0)
    assert not budget.delay_s(4, 10.0)
    budget.reported(5390, 32, now_s=10.0, left_of_minute_s=21.0)
    assert budget.delay_s(4, 11.0) == 20.0
    assert not budget.delay_s(4, 31.0)


def test_a_refusal_is_a_pause_for_all():
    budget = WeightBudget()
    budget.refused(17.0, 100.0)
    budget.refused(3.0, 101.0)
    assert budget.delay_s(1, 102.0) == 15.0
    assert not budget.delay_s(1, 117.0)
