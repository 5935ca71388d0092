"""No look-ahead: what comes later changes nothing of what was before, for any strategy, at any second."""

from decimal import Decimal
from random import Random

import pytest
from backtest_parts import START_MS, run, script, stat, terms
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.backtest import Order
from flows.backtest.engine import Run
from flows.backtest.strategies import MovingAverageCross, PeriodicRebalance

SYMBOLS = ("ADAUSDT", "BTCUSDT", "ETHUSDT")
TICKS = 10**4  # of prices, in 1e-8
PRICES = st.integers(1, 40)


@st.composite
def second(draw, number):
    """The SecondStats of one second: some symbols, at prices that often meet."""
    stats = []
    for symbol in sorted(draw(st.sets(st.sampled_from(SYMBOLS), min_size=1))):
        prices = draw(st.lists(PRICES, min_size=2, max_size=4))
        texts = [f"{price}.{price:02}" for price in prices]
        high, low = max(texts, key=Decimal), min(texts, key=Decimal)
        stats.append(stat(number, symbol, texts[0], high, low, texts[-1]))
    return stats


@st.composite
def worlds(draw):
    """(seconds, other seconds, cut): the same up to the cut, then each its own, of any length."""
    count = draw(st.integers(2, 12))
    seconds = [draw(second(n)) for n in range(count)]
    cut = draw(st.integers(1, count))
    other = [draw(second(n)) for n in range(cut, cut + draw(st.integers(0, 6)))]
    return seconds, seconds[:cut] + other, cut


class Guess:
    """Orders at random, but the same for the same past: every kind of order, cancels, from all that it is shown."""

    def __init__(self, seed: int) -> None:
        self._seed, self._past = seed, []

    def on_second(self, stats, account):
        shown = [(bar.symbol, bar.timestamp, bar.open, bar.high, bar.low, bar.close) for bar in stats.values()]
        self._past.append((shown, account.cash, account.equity, sorted(account.positions.items()), account.open_orders))
        random = Random(f"{self._seed}{self._past}")
        for waiting in account.open_orders:
            if random.random() < 0.2:
                account.cancel(waiting)
        orders = []
        for _ in range(random.randrange(4)):
            make, symbol = random.choice((Order.buy, Order.sell)), random.choice(SYMBOLS)
            size = Decimal(random.randrange(1, 400)) / 10
            price = account.last_price(symbol) or Decimal(20)
            limit = None if random.random() < 0.5 else price * random.randrange(90, 111) / 100
            orders.append(make(symbol, quote=size * 20) if random.random() < 0.3 else make(symbol, size, limit=limit))
        return orders


def curve(strategy, seconds, **conditions):
    """The run, and its equity after each second."""
    equities = []
    one = Run(
        strategy, terms(**conditions), SYMBOLS, [lambda time, _stats, equity, _ledger: equities.append((time, equity))]
    )
    for stats in seconds:
        one.second(stats[0].timestamp, stats)
    return one, equities


@settings(max_examples=300, deadline=None)
@given(world=worlds(), seed=st.integers(0, 2**20), kind=st.sampled_from(["guess", "cross", "rebalance"]))
def test_what_comes_later_changes_nothing_before(world, seed, kind):
    here, there, cut = world
    until = START_MS + 1000 * cut

    def strategy():
        if kind == "guess":
            return Guess(seed)
        made = MovingAverageCross.__new__(MovingAverageCross) if kind == "cross" else PeriodicRebalance()
        if kind == "cross":
            made.fast, made.slow = 1, 2
            made.__init__()
        else:
            made.every_s = 1
        return made

    conditions = {"fee_bps": "7.5", "slippage_bps": "3", "cash": "1000"}
    (one, equities), (two, others) = curve(strategy(), here, **conditions), curve(strategy(), there, **conditions)
    assert [e for e in equities if e[0] < until] == [e for e in others if e[0] < until]
    assert [f for f in one.fills if f.timestamp < until] == [f for f in two.fills if f.timestamp < until]
    assert [r for r in one.refusals if r.timestamp < until] == [r for r in two.refusals if r.timestamp < until]


@settings(max_examples=300, deadline=None)
@given(world=worlds(), seed=st.integers(0, 2**20))
def test_every_fill_is_one_that_the_rules_allow(world, seed):
    """Later than its order, and at a price that the second had; cash and positions stay above zero, to the last digit."""
    seconds, _, _ = world
    stats = {(one.timestamp, one.symbol): one for group in seconds for one in group}
    run_, equities = curve(Guess(seed), seconds, fee_bps="7.5", slippage_bps="3", cash="1000")
    cash, held = Decimal(1000), dict.fromkeys(SYMBOLS, Decimal(0))
    for fill in run_.fills:
        assert fill.timestamp > fill.placed_ms
        one = stats[fill.timestamp, fill.symbol]
        between = [time for time, symbol in stats if symbol == fill.symbol and fill.placed_ms < time < fill.timestamp]
        price, quantity = Decimal(fill.price).scaleb(-16), Decimal(fill.quantity).scaleb(-8)
        if fill.kind == "market":
            assert not between
            slip = Decimal("1.0003") if fill.side == "buy" else Decimal("0.9997")
            assert price == Decimal(one.open).scaleb(-8) * slip
        else:
            assert one.low * 10**8 <= fill.price <= one.high * 10**8
        fee = price * quantity * Decimal("0.00075")
        assert Decimal(fill.fee).scaleb(-32) == fee
        sign = 1 if fill.side == "buy" else -1
        cash -= sign * price * quantity + fee
        held[fill.symbol] += sign * quantity
        assert cash >= 0
        assert held[fill.symbol] >= 0
    last = {one.symbol: Decimal(one.close).scaleb(-8) for group in seconds for one in group}
    assert Decimal(equities[-1][1]).scaleb(-32) == cash + sum(held[symbol] * last[symbol] for symbol in last)


def test_a_strategy_that_peeks_at_its_bar_can_not_trade_in_it(tmp_path):
    """The best guess at a second's own range fills only in the next one."""
    seconds = [stat(0, "BTCUSDT", "100", "150", "50", "100"), stat(1, "BTCUSDT", "100", "101", "99", "100"),
               stat(2, "BTCUSDT", "100", "151", "49", "100")]  # fmt: skip

    def plan(second, stats, account):
        bar = stats["BTCUSDT"]
        return [Order.buy("BTCUSDT", "1", limit=bar.low), Order.sell("BTCUSDT", "1", limit=bar.high)]

    outcome = run(tmp_path, seconds, script(plan), allow_short=True)
    assert [(f["timestamp"] - START_MS, f["side"], f["price"], f["ordered_at"] - START_MS) for f in outcome.figures["fills"]] == [
        (2000, "buy", "50", 0), (2000, "sell", "150", 0), (2000, "buy", "99", 1000), (2000, "sell", "101", 1000),
    ]  # fmt: skip


def test_seconds_out_of_order_are_refused(tmp_path):
    one, two = stat(1, "BTCUSDT", "1", "1", "1", "1"), stat(0, "BTCUSDT", "1", "1", "1", "1")
    for wrong in ([one, two], [one, one]):
        with pytest.raises(Exception, match="comes after"):
            run(tmp_path, wrong, "buy_and_hold")
