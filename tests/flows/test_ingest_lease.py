"""Two ingests on one log: one writes, the other stands by."""

import signal
import time

import pytest
from flow_process import poll_until
from ingest_parts import world

pytestmark = pytest.mark.faults
SYMBOLS = ("BTCUSDT", "ETHUSDT")


@pytest.fixture(scope="module")
def market():
    with world("--rate", "1500") as made:
        yield made


@pytest.fixture
def pair(market):
    with market.ingest("btcusdt,ethusdt") as first, market.ingest("btcusdt,ethusdt", ready=False) as second:
        poll_until(lambda: "standing by" in second.reason(), what="the second's reason")
        for symbol in SYMBOLS:
            market.grows(symbol)
        assert first.ready()
        assert second.get("/readyz").status_code == 503
        assert second.get("/livez").status_code == 200
        assert second.streams()["connected"] is False
        yield first, second


def check_takeover(market, first, second, within_s, began_s):
    poll_until(second.ready, what="the second")
    assert time.monotonic() - began_s < within_s
    assert set(second.streams()["aggtrade"]) == set(SYMBOLS)
    for symbol in SYMBOLS:
        market.grows(symbol)
    market.assert_whole(*SYMBOLS)
    assert not [row for row in market.ledger() if row.state != "backfilled"]


def test_the_death_of_the_first_makes_the_second_go_on(market, pair):
    first, second = pair
    began_s = time.monotonic()
    first.kill()
    check_takeover(market, first, second, 25, began_s)


def test_a_stop_of_the_first_hands_over_at_once(market, pair):
    first, second = pair
    began_s = time.monotonic()
    first.stop()
    check_takeover(market, first, second, 15, began_s)


def test_one_that_was_frozen_finds_out_and_stands_by(market, pair):
    first, second = pair
    first.process.send_signal(signal.SIGSTOP)
    try:
        check_takeover(market, first, second, 25, time.monotonic())
    finally:
        first.process.send_signal(signal.SIGCONT)
    poll_until(lambda: "standing by" in first.reason(), what="the first's reason")
    for symbol in SYMBOLS:
        market.grows(symbol)
    market.assert_whole(*SYMBOLS)
    second.stop()
    poll_until(first.ready, what="the first again")
    market.assert_whole(*SYMBOLS)
