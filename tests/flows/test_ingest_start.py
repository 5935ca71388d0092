"""What ingest owes the log when it starts, and when a symbol does."""

import json
import time
import uuid

import pytest
from flow_process import poll_until, produce
from ingest_parts import partition, world

from flows.channels import RAW_AGGTRADE, SUBSCRIPTIONS
from infra.local.exchange.history import History
from infra.local.exchange.trade import Trade

HOUR_MS = 3_600_000
OLD = ("BTCUSDT", "ADAUSDT", "LTCUSDT")  # trade in the two hours before the test
QUIET = "TRXUSDT"  # did not, but once an hour ago


def second_of(time_ms):
    return time_ms - time_ms % 1000


@pytest.fixture(scope="module")
def began_ms():
    return time.time_ns() // 1_000_000


@pytest.fixture(scope="module")
def market(began_ms):
    """An exchange with a past of two hours."""

    def prepare(directory):
        directory.mkdir()
        with History(directory) as history:
            for symbol in OLD:
                history.append(
                    Trade(symbol, t, n, 10**8, 10**8, 3 * n, 3, t, False)
                    for n, t in enumerate(range(began_ms - 2 * HOUR_MS, began_ms - 60_000, 700), 1)
                )
            hour_ago = began_ms - HOUR_MS
            history.append([Trade(QUIET, hour_ago, 7, 10**8, 10**8, 21, 3, hour_ago, False)])

    with world("--rate", "1000", prepare=prepare) as made:
        yield made


def write_log(market, symbol, until_ms, ended=False):
    """The log of an ingest that stopped at `until_ms`."""
    records = []
    for row in market.rest("aggTrades", symbol=symbol, startTime=until_ms - 20_000, endTime=until_ms):
        value = json.dumps({"e": "aggTrade", "E": row["T"], "s": symbol, **row}).encode()
        records.append((row["T"], value))
    if ended:
        records.append((until_ms, json.dumps({"e": "subscription", "s": symbol, "on": False, "E": until_ms}).encode()))
    produce(
        market.brokers,
        RAW_AGGTRADE,
        [(symbol, value, partition(symbol), [("source", b"live")], t) for t, value in records],
    )
    return records


def subscribe(market, symbol):
    key, value = f"{symbol}:{uuid.uuid4()}", json.dumps({"symbol": symbol, "user": "u"}).encode()
    produce(market.brokers, SUBSCRIPTIONS.name, [(key, value, None, [])])


@pytest.fixture(scope="module")
def after_an_hour(market, began_ms):
    """The log ends an hour ago: BTCUSDT and TRXUSDT are owed since, LTCUSDT was ended, ADAUSDT never begun."""
    until_ms = began_ms - HOUR_MS
    for symbol, ended in (("BTCUSDT", False), ("LTCUSDT", True), (QUIET, False)):
        assert write_log(market, symbol, until_ms, ended)
    key = f"LTCUSDT:{uuid.uuid4()}"
    produce(market.brokers, SUBSCRIPTIONS.name, [(key, b'{"symbol":"LTCUSDT","user":"u"}', None, [])])
    with market.ingest("btcusdt,adausdt,trxusdt") as running:
        for symbol in (*OLD, QUIET):
            market.grows(symbol, 3)
        yield running


def test_what_is_within_reach_is_fetched_and_what_is_older_is_lost(market, after_an_hour, began_ms):
    market.assert_whole("BTCUSDT")
    [row] = market.ledger("BTCUSDT")
    assert row.state == "lost"
    assert "15 min" in row.reason
    trades = {trade["a"]: trade for trade in market.trades("BTCUSDT")}
    edge = trades[row.last_missing_a + 1]
    reach_ms = 15 * 60_000
    assert began_ms - reach_ms - 1000 <= edge["T"] <= time.time_ns() // 1_000_000 - reach_ms + 2000
    [before] = market.rest("aggTrades", symbol="BTCUSDT", fromId=row.last_missing_a, limit=1)
    assert second_of(before["T"]) < second_of(edge["T"])  # the edge's second is whole
    assert row.after_ms == trades[row.first_missing_a - 1]["T"]
    assert row.before_ms == edge["T"]


def test_a_long_silence_is_no_gap(market, after_an_hour):
    ids = market.ids(QUIET)
    assert {7, 8} <= ids
    assert not market.ledger(QUIET)
    market.assert_whole(QUIET)


@pytest.mark.parametrize("symbol", ["LTCUSDT", "ADAUSDT"])
def test_what_was_not_subscribed_is_not_owed_and_a_first_second_is_whole(market, after_an_hour, began_ms, symbol):
    """LTCUSDT was, until an hour ago."""
    assert not market.ledger(symbol)
    records = [record for record, _, _ in market.records(symbol)]
    [at] = [n for n, record in enumerate(records) if record.get("on")]
    assert all(r["T"] < began_ms - HOUR_MS + 1 for r in records[:at] if r["e"] == "aggTrade")
    new = {r["a"]: r for r in records[at:] if r["e"] == "aggTrade"}
    second = second_of(new[min(new)]["T"])
    rows = market.rest("aggTrades", symbol=symbol, startTime=second, limit=1000)
    assert poll_until(lambda: rows[0]["a"] in market.ids(symbol), what="the first trade of the first second")
    assert min(new) == rows[0]["a"]
    ids = market.ids(symbol)
    assert set(range(rows[0]["a"], max(ids) + 1)) <= ids


def test_a_subscription_while_it_runs_has_its_first_second_whole(market, after_an_hour):
    for symbol in ("SOLUSDT", "XRPUSDT", "DOGEUSDT"):
        began = len(market.messages())
        subscribe(market, symbol)
        poll_until(lambda s=symbol, b=began: market.trades(s, b), what=symbol)
        second = second_of(min(t["T"] for t in market.trades(symbol, began)))
        first = market.rest("aggTrades", symbol=symbol, startTime=second, limit=1)[0]["a"]
        poll_until(lambda s=symbol, a=first: a in market.ids(s), what="the second's first trade")
        market.assert_whole(symbol)
        records = market.records(symbol, began)
        assert records[0][0]["on"] is True
        assert not market.ledger(symbol)


@pytest.mark.faults
def test_restarts_leave_the_ids_contiguous(market, after_an_hour):
    symbols = ("BTCUSDT", "DOGEUSDT", "SOLUSDT")
    for symbol in symbols[1:]:
        if not market.ids(symbol):
            subscribe(market, symbol)
            market.grows(symbol, 3)
    if after_an_hour.process.poll() is None:
        after_an_hour.stop()
    before = {symbol: min(market.ids(symbol)) for symbol in symbols}
    for end in ("stop", "kill"):
        with market.ingest("btcusdt,adausdt,trxusdt") as running:
            began = len(market.messages())
            for symbol in symbols:
                market.grows(symbol, 20)
            getattr(running, end)()
        assert not [r for s in symbols for r, _, _ in market.records(s, began) if r["e"] == "subscription"]
    with market.ingest("btcusdt,adausdt,trxusdt"):
        for symbol in symbols:
            market.grows(symbol, 20)
        market.assert_whole(*symbols)
    assert {symbol: min(market.ids(symbol)) for symbol in symbols} == before
    assert len(market.ledger("BTCUSDT")) == 1
    assert not [row for row in market.ledger() if row.state == "open"]


@pytest.mark.faults
def test_a_restart_amid_a_hole_goes_on_with_it(market, after_an_hour):
    if after_an_hour.process.poll() is None:
        after_an_hour.stop()
    with market.ingest("btcusdt") as running:
        market.grows("BTCUSDT")
        market.fault("rest_errors", status=500)
        skipped = market.hits("skip")
        market.fault("skip", count=4, rate=0.5, symbols=["BTCUSDT"])
        poll_until(lambda: market.hits("skip") - skipped >= 4, what="skipped trades")
        market.grows("BTCUSDT")
        missing = poll_until(
            lambda: [row for row in market.ledger("BTCUSDT") if row.state == "open"], what="an open row"
        )
        running.kill()
    assert {row.first_missing_a for row in missing}.isdisjoint(market.ids("BTCUSDT"))
    market.fault("clear")
    with market.ingest("btcusdt"):
        market.grows("BTCUSDT")
        market.assert_whole("BTCUSDT")
        poll_until(lambda: not [r for r in market.ledger("BTCUSDT") if r.state == "open"], what="a settled ledger")
    assert {row.first_missing_a for row in missing} <= market.ids("BTCUSDT")


@pytest.mark.faults
def test_a_symbol_nobody_wants_any_more_is_ended_in_the_log(market, after_an_hour):
    with market.ingest("btcusdt,ethusdt"):
        market.grows("ETHUSDT", 5)
    began = len(market.messages())
    with market.ingest("btcusdt"):
        market.grows("BTCUSDT", 5)
    ended = [record for record, _, _ in market.records("ETHUSDT", began) if record.get("on") is False]
    assert len(ended) == 1
