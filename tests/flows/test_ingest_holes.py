"""Holes in what the streams bring, made by the exchange's own faults."""

import json

import pytest
from flow_process import poll_until
from ingest_parts import REST_FIELDS, partition, world

SYMBOLS = ("BTCUSDT", "ETHUSDT", "XRPUSDT")


@pytest.fixture(scope="module")
def market():
    with world("--rate", "1500") as made, made.ingest():
        for symbol in SYMBOLS:
            made.grows(symbol)
        yield made


@pytest.fixture(autouse=True)
def without_faults(market):
    yield
    market.fault("clear")


def rows(market, symbol, state):
    return [row for row in market.ledger(symbol) if row.state == state]


def test_reordered_and_doubled_frames_are_no_holes(market):
    before = len(market.ledger())
    market.fault("reorder", rate=0.1, delay_ms=50)
    market.fault("duplicates", rate=0.1)
    market.grows("BTCUSDT", 300)
    market.fault("clear")
    market.assert_whole(*SYMBOLS)
    assert market.hits("reorder") > 10
    assert len(market.ledger()) == before


def test_what_rest_has_is_filled_in_and_named(market):
    market.fault("skip", rate=0.02, count=20, symbols=["BTCUSDT"])
    poll_until(lambda: market.hits("skip") >= 20, what="skipped trades")
    market.grows("BTCUSDT")
    market.assert_whole("BTCUSDT")
    poll_until(lambda: not rows(market, "BTCUSDT", "open"), what="a settled ledger")
    filled = {a for row in rows(market, "BTCUSDT", "backfilled") for a in range(row.first_missing_a, row.last_missing_a + 1)}  # fmt: skip
    fetched = [
        (r, h, m) for r, h, m in market.records("BTCUSDT") if h.get("source") == b"backfill" and r["a"] in filled
    ]
    assert len(filled) == len({r["a"] for r, _, _ in fetched}) == 20
    assert not market.lost("BTCUSDT")
    for record, headers, message in fetched:
        [row] = market.rest("aggTrades", symbol="BTCUSDT", fromId=record["a"], limit=1)
        assert record == {"e": "aggTrade", "s": "BTCUSDT", **row}
        assert message.value().startswith(b'{"e":"aggTrade","s":"BTCUSDT","a":')
        assert message.key() == b"BTCUSDT"
        assert message.timestamp()[1] == row["T"]
        assert int(headers["received_ms"]) >= row["T"]
        assert message.partition() == partition("BTCUSDT")
    for row in rows(market, "BTCUSDT", "backfilled"):
        assert row.after_ms <= row.before_ms <= row.updated_ms


def test_what_rest_has_not_is_lost_with_the_reason(market):
    before = market.hits("skip")
    market.fault("skip", rest=False, rate=0.02, count=5, symbols=["ETHUSDT"])
    poll_until(lambda: market.hits("skip") - before >= 5, what="skipped trades")
    market.grows("ETHUSDT")
    market.assert_whole("ETHUSDT")
    poll_until(lambda: not rows(market, "ETHUSDT", "open"), what="a settled ledger")
    lost = market.lost("ETHUSDT")
    assert len(lost) == 5
    assert not lost & market.ids("ETHUSDT")
    assert {row.reason for row in rows(market, "ETHUSDT", "lost")} == {"REST has no such trades"}


def test_raw_ids_that_do_not_join_are_lost_at_once(market):
    market.fault("raw_ids", count=1, symbols=["XRPUSDT"])
    found = poll_until(lambda: [r for r in rows(market, "XRPUSDT", "lost") if "broken f/l" in r.reason], what="a row")
    market.grows("XRPUSDT")
    trades = {trade["a"]: trade for trade in market.trades("XRPUSDT")}
    for row in found:
        assert trades[row.first_missing_a]["f"] != trades[row.first_missing_a - 1]["l"] + 1


def test_after_a_cut_nothing_is_missing_and_nothing_is_late(market):
    began = len(market.messages())
    market.fault("cut")
    poll_until(lambda: any(h.get("source") == b"backfill" for s in SYMBOLS for _, h, _ in market.records(s, began)),
               what="backfilled trades")  # fmt: skip
    for symbol in SYMBOLS:
        market.grows(symbol)
    market.assert_whole(*SYMBOLS)
    assert market.late(began) == []
    assert not [row for row in market.ledger() if row.state == "open"]


def test_a_dead_line_is_noticed_and_its_trades_are_fetched(market):
    market.fault("blackhole")
    sent = {symbol: market.rest("aggTrades", symbol=symbol, limit=1)[-1]["a"] for symbol in SYMBOLS}
    poll_until(lambda: all(max(market.ids(s)) > sent[s] + 100 for s in SYMBOLS), seconds=60, what="trades after it")
    market.assert_whole(*SYMBOLS)


def test_while_rest_fails_a_hole_stays_open_and_then_it_is_filled(market):
    market.fault("rest_errors", status=503)
    before, skipped = market.hits("rest_errors"), market.hits("skip")
    market.fault("skip", count=3, symbols=["BTCUSDT"])
    poll_until(lambda: market.hits("skip") - skipped >= 3, what="skipped trades")
    poll_until(lambda: rows(market, "BTCUSDT", "open"), what="an open row")
    poll_until(lambda: market.hits("rest_errors") - before >= 3, what="new tries")
    assert rows(market, "BTCUSDT", "open")
    market.fault("clear", of="rest_errors")
    poll_until(lambda: not rows(market, "BTCUSDT", "open"), seconds=40, what="a settled ledger")
    market.assert_whole("BTCUSDT")


@pytest.mark.parametrize("status", [429, 418])
def test_a_refusal_is_respected_for_as_long_as_it_says(market, status):
    before = market.hits("rest_errors")
    market.fault("rest_errors", status=status, retry_after_s=4, path="aggTrades", duration_ms=4000)
    began = len(market.messages())
    market.fault("cut")
    poll_until(lambda: market.hits("rest_errors") > before, what="a refused request")
    for symbol in SYMBOLS:
        market.grows(symbol)
    market.assert_whole(*SYMBOLS)
    assert market.hits("rest_errors") - before <= len(SYMBOLS)  # those that were on their way
    assert json.loads(market.messages()[began].value())


def test_a_backfilled_trade_says_what_the_live_one_would_have(market):
    trades = {trade["a"]: trade for trade in market.trades("ETHUSDT")}
    first = min(trades)
    for row in market.rest("aggTrades", symbol="ETHUSDT", fromId=first, limit=1000):
        if row["a"] in trades:
            assert {name: trades[row["a"]][name] for name in REST_FIELDS} == {name: row[name] for name in REST_FIELDS}
