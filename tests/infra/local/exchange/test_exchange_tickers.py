"""Rolling 24 hours against the naive way, and their return after a restart."""

from hypothesis import given, settings
from hypothesis import strategies as st

from infra.local.exchange.history import History
from infra.local.exchange.tickers import MINUTE_MS, Ticker, Tickers
from infra.local.exchange.trade import Trade


def row(agg_id: int, price: int, trade_ms: int) -> Trade:
    return Trade("BTCUSDT", trade_ms, agg_id, price, 3, agg_id, 1, trade_ms, False)


def values(ticker: Ticker) -> tuple[int, ...]:
    return (ticker.open, ticker.high, ticker.low, ticker.close, ticker.volume, ticker.quote_volume, ticker.trades)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 700 * MINUTE_MS), st.integers(1, 50)), min_size=1, max_size=60))
def test_a_ticker_equals_a_look_at_all_its_minutes(steps):
    ticker, now, trades = Ticker("BTCUSDT", 5), 0, []
    assert (ticker.open, ticker.high, ticker.low, ticker.close) == (5, 5, 5, 5)
    for number, (step, price) in enumerate(steps):
        now += step
        trades.append(row(number, price, now))
        ticker.add(trades[-1])
        day = [t for t in trades if t.trade_ms // MINUTE_MS > now // MINUTE_MS - 1440]
        prices = [t.price for t in day]
        volume = sum(t.quantity for t in day)
        quote = sum(t.price * t.quantity for t in day)
        assert values(ticker) == (prices[0], max(prices), min(prices), prices[-1], volume, quote, len(day))


def test_a_restart_brings_the_tickers_back(tmp_path):
    journal, prices = tmp_path / "minutes.jsonl", {"BTCUSDT": 5, "ETHUSDT": 7}
    trades = [row(n, 10 + n * 7 % 23, n * 45_000) for n in range(3000)]
    with History(tmp_path) as history:
        tickers = Tickers(journal, prices, history, 0)
        history.append(trades)
        tickers.add(trades)
        expected = values(tickers.by_symbol["BTCUSDT"])
        tickers.close()
        with journal.open("a") as lines:
            lines.write('["BTCUSDT", 99')  # a line torn by a crash
        again = Tickers(journal, prices, history, trades[-1].trade_ms)
        assert values(again.by_symbol["BTCUSDT"]) == expected
        again.close()
        journal.unlink()
        anew = Tickers(journal, prices, history, trades[-1].trade_ms)
        assert values(anew.by_symbol["BTCUSDT"]) == expected
        assert values(anew.by_symbol["ETHUSDT"])[:4] == (7, 7, 7, 7)
        anew.close()
