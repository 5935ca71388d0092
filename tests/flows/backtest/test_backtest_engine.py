"""Orders, fills, fees and slippage, against figures that were worked out by hand."""

import sys
from decimal import Decimal
from hashlib import sha256

import pytest
from backtest_parts import START_MS, flat, run, script, stat

from flows.backtest import Order, StrategyError
from tracker.backtest_view import show


def fills(outcome):
    return [
        (fill["timestamp"] // 1000 - START_MS // 1000, fill["side"], fill["quantity"], fill["price"], fill["fee"])
        for fill in outcome.figures["fills"]
    ]


def test_a_market_order_fills_at_the_open_of_the_symbols_next_second_plus_slippage(tmp_path):
    seconds = [
        stat(0, "BTCUSDT", "100", "110", "90", "105"), flat(1, "ETHUSDT", "10"),
        stat(3, "BTCUSDT", "120", "130", "119", "125"), stat(4, "BTCUSDT", "200", "200", "150", "150"),
    ]  # fmt: skip

    def plan(second, stats, account):
        if second == 0:
            return Order.buy("BTCUSDT", "2")
        return Order.sell("BTCUSDT", "0.5") if second == 3 else None

    outcome = run(tmp_path, seconds, script(plan), fee_bps="10", slippage_bps="5")
    # Bought at 120 × 1.0005 = 120.06: costs 240.12 and 0.24012; sold at 200 × 0.9995 = 199.9: 99.95 less 0.09995.
    assert fills(outcome) == [(3, "buy", "2", "120.06", "0.24012"), (4, "sell", "0.5", "199.9", "0.09995")]
    cash = Decimal(10000) - Decimal("240.36012") + Decimal("99.85005")
    figures = outcome.figures
    assert figures["final_equity"] == str(cash + Decimal("1.5") * 150) == "10084.48993"
    assert figures["total_return"] == "0.008448993"
    assert figures["fees"] == "0.34007"
    # BTC's first fill: 120.06, its last close 150; ETH, of the second after the first one: 10.005, and 10.
    mean = (Decimal(150) / Decimal("120.06") + Decimal(10) / Decimal("10.005")) / 2 - 1
    assert figures["buy_and_hold_return"] == str(round(mean, 16))
    curve = [(0, "10000"), (1, "10000"), (3, str(cash - Decimal("99.85005") + 250)), (4, "10084.48993")]
    lines = "".join(f"{START_MS + 1000 * second},{equity}\n" for second, equity in curve)
    assert figures["equity_sha256"] == sha256(lines.encode()).hexdigest()
    assert (figures["start"], figures["end"]) == ("2024-08-08T23:54:15Z", "2024-08-08T23:54:20Z")
    assert figures["exposure"] == "0.4"  # of 5 seconds, 2
    assert outcome.figures["fills"][0]["ordered_at"] == START_MS


def test_the_figures_of_risk(tmp_path):
    prices = ["100", "100", "110", "99", "99", "108.9"]
    seconds = [flat(n, "BTCUSDT", price) for n, price in enumerate(prices)]
    figures = run(tmp_path, seconds, "buy_and_hold").figures
    assert figures["final_equity"] == "10890"
    assert figures["max_drawdown"] == "0.1"
    # Returns 0, 0.1, −0.1, 0, 0.1: mean 0.02, deviation √((0.03 − 5 × 0.02²) / 4) = √0.007.
    year = Decimal(365 * 24 * 3600)
    assert Decimal(figures["volatility"]) == round((Decimal("0.007") * year).sqrt(), 12)
    sharpe = Decimal(figures["sharpe"])
    assert abs(sharpe - Decimal("0.02") / Decimal("0.007").sqrt() * year.sqrt()) < Decimal("1e-11")
    assert Decimal(figures["turnover"]) == round(
        10000 / ((10000 + 10000 + 11000 + 9900 + 9900 + 10890) / Decimal(6)), 12
    )
    assert figures["exposure"] == "0.833333333333"


def test_a_second_without_trades_is_a_return_of_zero(tmp_path):
    def figures(*at):
        seconds = [flat(second, "BTCUSDT", price) for second, price in zip(at, ("100", "100", "110"), strict=True)]
        return run(tmp_path, seconds, "buy_and_hold").figures

    year = Decimal(365 * 24 * 3600)
    assert Decimal(figures(0, 1, 2)["volatility"]) == round((Decimal("0.005") * year).sqrt(), 12)
    # Ten returns, one of them 0.1: (0.01 − 0.1² / 10) / 9. Ten seconds at 10000 and one at 11000; held in all but one.
    gapped = figures(0, 1, 10)
    assert Decimal(gapped["volatility"]) == round((Decimal("0.001") * year).sqrt(), 12)
    assert Decimal(gapped["turnover"]) == round(Decimal(110_000) / 111_000, 12)
    assert Decimal(gapped["exposure"]) == round(Decimal(10) / 11, 12)


@pytest.mark.parametrize(
    ("side", "limit", "expected"),
    [
        ("buy", "95", (2, "95")),  # the low of second 2 reaches it
        ("buy", "94", (3, "93")),  # second 3 opens below it: better than asked
        ("buy", "80", None),
        ("sell", "106", (2, "106")),
        ("sell", "104", (1, "105")),
        ("sell", "107", None),
    ],
)
def test_a_limit_order_fills_in_the_first_later_second_that_reaches_it(tmp_path, side, limit, expected):
    seconds = [
        stat(0, "BTCUSDT", "100", "200", "50", "100"), stat(1, "BTCUSDT", "105", "105", "96", "100"),
        stat(2, "BTCUSDT", "100", "106", "95", "100"), stat(3, "BTCUSDT", "93", "99", "90", "99"),
    ]  # fmt: skip
    order = getattr(Order, side)("BTCUSDT", "1", limit=limit)
    outcome = run(tmp_path, seconds, script(lambda second, *_: order if second == 0 else None), slippage_bps="50",
                  allow_short=True)  # fmt: skip
    assert [(second, price) for second, _, _, price, _ in fills(outcome)] == ([expected] if expected else [])
    assert outcome.open_orders == (0 if expected else 1)


def test_what_fills_at_the_open_comes_before_limits_within_the_second(tmp_path):
    seconds = [flat(0, "BTCUSDT", "100"), stat(1, "BTCUSDT", "100", "101", "90", "95")]

    def plan(second, stats, account):
        return [Order.buy("BTCUSDT", "60", limit="95"), Order.buy("BTCUSDT", "60")] if second == 0 else None

    outcome = run(tmp_path, seconds, script(plan))
    assert [(side, price) for _, side, _, price, _ in fills(outcome)] == [("buy", "100")]
    assert outcome.refusals == ((START_MS + 1000, "buy 60 of BTCUSDT at 95", "not enough cash"),)


@pytest.mark.parametrize(
    ("order", "allowed", "reason"),
    [
        (Order.buy("BTCUSDT", "100.00000001"), {}, "not enough cash"),
        (Order.buy("BTCUSDT", "100.00000001"), {"allow_debt": True}, None),
        (Order.buy("BTCUSDT", "100"), {}, None),
        (Order.sell("BTCUSDT", "0.00000001"), {}, "more than is held"),
        (Order.sell("BTCUSDT", "1"), {"allow_short": True}, None),
        (Order.sell("BTCUSDT", quote="5"), {}, "nothing is left of its size"),
        (Order.sell("BTCUSDT", quote="5"), {"allow_short": True}, None),
        (Order.buy("BTCUSDT", "0.000000001"), {}, "nothing is left of its size"),
    ],
)
def test_cash_and_positions_are_never_negative_unless_allowed(tmp_path, order, allowed, reason):
    seconds = [flat(0, "BTCUSDT", "100"), flat(1, "BTCUSDT", "100")]
    outcome = run(tmp_path, seconds, script(lambda second, *_: order if second == 0 else None), **allowed)
    assert [why for _, _, why in outcome.refusals] == ([reason] if reason else [])
    assert len(outcome.figures["fills"]) == (0 if reason else 1)
    assert outcome.figures["final_equity"] == "10000"


def test_a_quote_spends_no_more_than_cash_fee_included(tmp_path):
    seconds = [flat(0, "BTCUSDT", "100"), flat(1, "BTCUSDT", "3"), flat(2, "BTCUSDT", "3")]
    seen = []

    def plan(second, stats, account):
        seen.append((account.cash, account.position("btcusdt")))
        return Order.buy("BTCUSDT", quote="20000") if second == 0 else None

    run(tmp_path, seconds, script(plan), fee_bps="10")
    cash, held = seen[-1]
    assert held == Decimal("3330.00333000")  # 10000 / 3.003, cut to 8 decimals
    assert cash == 10000 - held * Decimal("3.003")
    assert 0 <= cash < Decimal("0.00000004")


def test_the_account_is_what_a_strategy_can_know(tmp_path):
    seconds = [flat(0, "BTCUSDT", "100"), flat(1, "BTCUSDT", "110"), flat(2, "BTCUSDT", "120"), flat(3, "ETHUSDT", "1")]
    seen = []

    def plan(second, stats, account):
        seen.append((account.equity, dict(account.positions), account.last_price("ETHUSDT"), len(account.open_orders)))
        if second == 0:
            return [Order.buy("BTCUSDT", "1"), Order.buy("BTCUSDT", "1", limit="1")]
        if second == 1:
            assert account.cancel(account.open_orders[0])
            with pytest.raises(AttributeError):
                account.cash = 5
        return None

    outcome = run(tmp_path, seconds, script(plan))
    assert seen == [(10000, {}, None, 0), (10000, {"BTCUSDT": 1}, None, 1), (10010, {"BTCUSDT": 1}, None, 0),
                    (10010, {"BTCUSDT": 1}, 1, 0)]  # fmt: skip
    assert outcome.figures["symbols"] == ["BTCUSDT", "ETHUSDT"]


@pytest.mark.parametrize(
    ("orders", "message"),
    [
        (lambda: Order.buy("DOGEUSDT", "1"), "an order for DOGEUSDT; there are BTCUSDT"),
        (lambda: "buy", "on_second gives Orders, or nothing, not 'b'"),
        (lambda: 5, "TypeError: 'int' object is not iterable"),
        (lambda: Order.buy("BTCUSDT", 0.1), "0.1 is a float, which is not exact"),
        (lambda: Order.buy("BTCUSDT", "-1"), "negative size"),
        (lambda: Order.buy("BTCUSDT", "1", limit="0"), "the limit 0"),
        (lambda: Order.buy("BTCUSDT", quote="1", limit="2"), "can't have a limit"),
        (lambda: Order.buy("BTCUSDT"), "either a quantity or a quote"),
        (lambda: Order.buy("BTCUSDT", "1e30"), "out of range"),
        (lambda: Order.buy("BTCUSDT", "much"), "'much' is no decimal"),
        (lambda: 1 // 0, "ZeroDivisionError"),
    ],
)
def test_what_a_strategy_does_wrong_is_said_with_the_time(tmp_path, orders, message):
    with pytest.raises(StrategyError, match=f"Plan, at {START_MS}: ") as caught:
        run(tmp_path, [flat(0, "BTCUSDT", "100")], script(lambda *_: orders()))
    assert message in str(caught.value)


def test_a_ruined_account_has_no_sharpe(tmp_path):
    seconds = [flat(n, "BTCUSDT", price) for n, price in enumerate(("100", "100", "300", "250"))]
    plan = script(lambda second, *_: Order.sell("BTCUSDT", "100") if second == 0 else None)
    figures = run(tmp_path, seconds, plan, allow_short=True).figures
    assert figures["final_equity"] == "-5000"
    assert (figures["sharpe"], figures["volatility"], figures["max_drawdown"]) == (None, None, "2")


@pytest.mark.parametrize(
    "fields",
    [
        ("BTCUSDT", "buy", 1.5), ("BTCUSDT", "buy", float("nan")), ("BTCUSDT", "buy", -100), ("BTCUSDT", "buy", True),
        ("BTCUSDT", "BUY", 100), ("BTCUSDT", "buy", None), ("BTCUSDT", "buy", 1, 1), ("BTCUSDT", "buy", 10**27),
        ("BTCUSDT", "sell", 100, None, 0), ("BTCUSDT", "sell", 100, None, 50.5), ("BTCUSDT", "buy", None, 1, 1),
    ],
)  # fmt: skip
def test_an_order_made_by_hand_is_looked_at_as_well(tmp_path, fields):
    with pytest.raises(StrategyError, match="no order"):
        run(tmp_path, [flat(n, "BTCUSDT", "100") for n in range(3)], script(lambda *_: Order(*fields)))


def test_a_strategy_that_exits_is_an_error(tmp_path):
    with pytest.raises(StrategyError, match="SystemExit"):
        run(tmp_path, [flat(0, "BTCUSDT", "100")], script(lambda *_: sys.exit(0)))


@pytest.mark.parametrize("symbol", ["[/]X", "[RED]X"])
def test_a_symbol_is_no_markup(tmp_path, capsys, symbol):
    def plan(second, stats, account):
        return [Order.buy(symbol, "1"), Order.sell(symbol, "99")] if second == 0 else None

    show(run(tmp_path, [flat(n, symbol, "100") for n in range(3)], script(plan)), {"topic": "t"})
    assert capsys.readouterr().out.count(symbol) == 3
