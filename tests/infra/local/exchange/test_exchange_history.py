"""What is written stays, through `kill -9` too."""

import contextlib
import itertools
import json
import signal

import pytest
import websockets
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.local.exchange.history import History, HistoryInUse
from infra.local.exchange.trade import Trade


def row(agg_id: int, trade_ms: int, symbol: str = "BTCUSDT", **fields) -> Trade:
    return Trade(symbol, trade_ms, agg_id, 100 + agg_id, 7, 10 * agg_id, 3, trade_ms, agg_id % 2 == 0, **fields)


def test_rows_come_back_as_they_were(tmp_path):
    rows = [row(5, 1000), row(6, 1001, listed=False), row(9, 1001)]
    with History(tmp_path) as history:
        history.append([*rows, row(1, 50, "币安人生USDT")])
    with History(tmp_path) as history:
        assert list(history.symbol("BTCUSDT").from_id(0)) == rows
        assert list(history.symbol("BTCUSDT").from_id(6)) == rows[1:]
        assert list(history.symbol("BTCUSDT").from_id(7)) == rows[2:]
        assert history.symbol("BTCUSDT").last == rows[-1]
        assert history.newest("BTCUSDT", 10) == [rows[0], rows[2]]
        assert history.symbol("币安人生USDT").last == row(1, 50, "币安人生USDT")


def test_a_torn_row_is_cut_off(tmp_path):
    with History(tmp_path) as history:
        history.append([row(1, 10), row(2, 20)])
    file = tmp_path / "trades" / "BTCUSDT.rows"
    with file.open("ab") as rows:
        rows.write(b"torn")
    with History(tmp_path) as history:
        history.append([row(3, 30)])
        assert [t.agg_id for t in history.symbol("BTCUSDT").from_id(0)] == [1, 2, 3]


def test_ids_that_were_there_are_not_written_again(tmp_path):
    with History(tmp_path) as history:
        history.append([row(1, 10), row(2, 20), row(2, 20), row(1, 10), row(3, 30)])
        assert [t.agg_id for t in history.symbol("BTCUSDT").from_id(0)] == [1, 2, 3]


def test_one_process_at_a_time(tmp_path):
    with History(tmp_path), pytest.raises(HistoryInUse):
        History(tmp_path)


@pytest.mark.parametrize("symbol", ["../x", "a/b", "", "x" * 51])
def test_a_symbol_is_no_path(tmp_path, symbol):
    with History(tmp_path) as history, pytest.raises(ValueError, match="not a symbol"):
        history.symbol(symbol)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 50)), min_size=1, max_size=80),
    window=st.tuples(st.integers(-10, 900), st.integers(0, 300)),
)
def test_searches_by_time_find_stragglers(tmp_path_factory, steps, window):
    now, rows = 0, []
    for number, (step, late) in enumerate(steps):
        now += step
        rows.append(row(number + 1, max(0, now - late)))
    start, end = window[0], window[0] + window[1]
    with History(tmp_path_factory.mktemp("history")) as history:
        history.append(rows)
        file = history.symbol("BTCUSDT")
        assert list(file.between(start, end)) == [t for t in rows if start <= t.trade_ms <= end]
        assert list(file.before(start)) == [t for t in reversed(rows) if t.trade_ms < start]


async def test_ids_go_on_after_kill_9(spawn):
    first: dict[str, int] = {}
    seen: dict[str, int] = {}
    for _ in range(3):
        running = await spawn("--rate", "5000")
        async with running.client.connect("/stream?streams=btcusdt@aggTrade/ethusdt@aggTrade") as connection:
            this_run: set[str] = set()
            with contextlib.suppress(websockets.ConnectionClosedError):
                for number in itertools.count():
                    trade = json.loads(await connection.recv())["data"]
                    first.setdefault(trade["s"], trade["a"])
                    expected = seen.get(trade["s"], 0) + 1
                    assert trade["a"] == expected if trade["s"] in this_run else trade["a"] >= expected
                    seen[trade["s"]] = trade["a"]
                    this_run.add(trade["s"])
                    if number == 500:
                        running.process.send_signal(signal.SIGKILL)
        running.process.wait(10)
    last = await spawn("--rate", "10")
    for symbol, agg_id in seen.items():
        start = max(first[symbol], agg_id - 999)
        rows = (await last.client.get("aggTrades", symbol=symbol, fromId=start, limit=1000)).json()
        assert rows[0]["a"] == start
        assert rows[-1]["a"] >= agg_id
        assert all(b["a"] == a["a"] + 1 and b["f"] == a["l"] + 1 for a, b in itertools.pairwise(rows))
