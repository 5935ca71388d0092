"""Candles over a written history: pure."""

import pytest

from infra.local.exchange.history import History
from infra.local.exchange.klines import INTERVALS_MS, klines
from infra.local.exchange.trade import UNIT, Trade

MINUTE = 60_000
DAY = 86_400_000


def row(agg_id: int, trade_ms: int, price: int, quantity: int = 2 * UNIT, count: int = 2, maker: bool = False) -> Trade:
    return Trade("BTCUSDT", trade_ms, agg_id, price * UNIT, quantity, 2 * agg_id, count, trade_ms, maker)


@pytest.fixture
def history(tmp_path):
    with History(tmp_path) as history:
        yield history


def test_order_goes_by_id_and_time_by_trade_time(history):
    trades = [row(1, 70_000, 5), row(2, 119_999, 9, maker=True), row(3, 120_000, 4), row(4, 119_000, 7)]
    history.append([*trades, row(5, 400_000, 6)])
    found = klines(history.symbol("BTCUSDT"), "1m", None, 400_001, 1000)
    first, second = (kline.row() for kline in found[:2])
    assert first[:6] == [60_000, "5.00000000", "9.00000000", "5.00000000", "7.00000000", "6.00000000"]
    assert first[6:] == [119_999, "42.00000000", 6, "4.00000000", "24.00000000", "0"]
    assert second[:6] == [120_000, "4.00000000", "4.00000000", "4.00000000", "4.00000000", "2.00000000"]
    assert second[6:] == [179_999, "8.00000000", 2, "2.00000000", "8.00000000", "0"]
    assert [(k.open_ms // MINUTE, k.open // UNIT, k.trades) for k in found] == [
        (1, 5, 6),
        (2, 4, 2),
        (3, 4, 0),
        (4, 4, 0),
        (5, 4, 0),
        (6, 6, 2),
    ]


def test_start_end_and_limit(history):
    history.append(row(n, n * 1000 + 5, n) for n in range(1, 50))
    file = history.symbol("BTCUSDT")
    assert [k.open_ms for k in klines(file, "1s", 2500, 6000, 1000)] == [3000, 4000, 5000, 6000]
    assert [k.open_ms for k in klines(file, "1s", 2500, 40_000, 2)] == [3000, 4000]
    assert [k.open_ms for k in klines(file, "1s", None, 9999, 2)] == [8000, 9000]
    assert [k.open_ms for k in klines(file, "1s", 0, 1999, 10)] == [1000]
    assert klines(history.symbol("ETHUSDT"), "1s", 0, 1999, 10) == []


def test_days_off_repeat_the_last_close(history):
    history.append([row(1, 5, 3), row(2, 3 * DAY, 8)])
    found = klines(history.symbol("BTCUSDT"), "1s", 2 * DAY, 4 * DAY, 3)
    assert [(k.close // UNIT, k.trades) for k in found] == [(3, 0)] * 3


def test_invalid_rows_count_for_nothing(history):
    history.append([row(1, 1000, 3), Trade("BTCUSDT", 1500, 2, 0, 0, -1, 0, 1500, False)])
    (kline,) = klines(history.symbol("BTCUSDT"), "1s", 1000, 1999, 5)
    assert (kline.low // UNIT, kline.trades) == (3, 2)


@pytest.mark.parametrize("interval", INTERVALS_MS)
def test_every_interval(history, interval):
    history.append([row(1, 10 * DAY + 5, 3)])
    (kline,) = klines(history.symbol("BTCUSDT"), interval, None, 10 * DAY + 5, 1)
    assert kline.close_ms - kline.open_ms + 1 == INTERVALS_MS[interval]
    assert kline.trades == 2
