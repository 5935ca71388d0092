"""Frames of the exchange, taken apart byte for byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.domain.errors import ExchangeBlocked, ExchangeUnreachable, InvalidRecord, RateLimited
from flows.venues.binance import protocol
from flows.venues.binance.failures import BLOCKED_PAUSE_S, LONGEST_PAUSE_S, pause_before_retry
from flows.venues.binance.protocol import Answer, read_frame

TRADE = b'{"e":"aggTrade","E":1790000000123,"s":"BTCUSDT","a":501,"p":"64000.10" , "q":"0.0150","X":{"y":[1]}}'


@pytest.mark.parametrize("frame", [TRADE, b'{"stream":"btcusdt@aggTrade","data":' + TRADE + b"}"])
def test_the_object_keeps_its_bytes(frame):
    [payload] = read_frame(frame)
    assert payload.data == TRADE
    assert (payload.event_type, payload.symbol, payload.event_time) == ("aggTrade", "BTCUSDT", 1790000000123)


def test_an_array_is_cut_into_its_objects():
    items = [b'{"e":"24hrMiniTicker","E":%d,"s":"S%d","c":"1"  }' % (n + 1, n) for n in range(3)]
    frame = b'{"stream":"!miniTicker@arr","data":[' + b" , ".join(items) + b"]}"
    assert [p.data for p in read_frame(frame)] == items
    assert [p.symbol for p in read_frame(b"[" + b",".join(items) + b"]")] == ["S0", "S1", "S2"]


@pytest.mark.parametrize(("frame", "answer"), [
    (b'{"result":null,"id":1}', Answer(1, None)),
    (b'{"code":2,"msg":"Invalid request"}', Answer(None, "Invalid request (code 2)")),
    (b'{"error":{"code":3,"msg":"Invalid JSON"},"id":7}', Answer(7, "Invalid JSON (code 3)")),
    (b'{"result":["btcusdt@aggTrade"],"id":3}', Answer(3, None)),
])  # fmt: skip
def test_answers_to_control_messages(frame, answer):
    assert read_frame(frame) == answer


@pytest.mark.parametrize("frame", [
    b"", b"x", b"{", b"nul", b'{"stream":"x"}', b'{"stream":"x","data":1}', b'{"e":"aggTrade"}', b'{"e":"aggTrade","E":"1"}',
    b"{}", b'{"data":{"e":"aggTrade","E":1,"s":"X"},"stream":"x"}', b'{"id":1}', b'[{"e":"x"}]', b"[1]",
    b'{"stream":"x","data":{"e":"x","E":1,"s":"\xff"}}',
])  # fmt: skip
def test_what_is_no_frame_is_named(frame):
    with pytest.raises(InvalidRecord, match="not a frame"):
        read_frame(frame)


@given(st.binary())
def test_any_bytes_give_payloads_an_answer_or_invalid_record(frame):
    try:
        found = read_frame(frame)
    except InvalidRecord:
        return
    assert isinstance(found, list | Answer)


def test_recorded_frames(recordings):
    lines = (recordings / "sample_frames.jsonl").read_bytes().splitlines()
    kinds = set()
    for line in lines:
        for payload in read_frame(line):
            kinds.add(payload.event_type)
            assert payload.data in line
            assert json.loads(payload.data).get("s", "") == payload.symbol
    assert {"aggTrade", "24hrMiniTicker", "kline"} <= kinds


def test_control_messages():
    assert json.loads(protocol.control("SUBSCRIBE", [protocol.agg_trade_stream("BTCUSDT")], 4)) == {
        "method": "SUBSCRIBE", "params": ["btcusdt@aggTrade"], "id": 4,
    }  # fmt: skip


def test_pauses_before_a_retry():
    pauses = [pause_before_retry(ExchangeUnreachable("x"), attempt) for attempt in range(40)]
    assert all(0.1 <= pause <= LONGEST_PAUSE_S for pause in pauses)
    assert max(pauses) > 1
    assert pause_before_retry(RateLimited("x", 17), 0) == 17
    assert pause_before_retry(ExchangeBlocked("x"), 0) == BLOCKED_PAUSE_S
