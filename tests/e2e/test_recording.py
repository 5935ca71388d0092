"""Real recorded trades through the whole pipeline: every field but the times as recorded, every second recomputed."""

import gzip
import json

import pytest
from stack import Stack, poll_until
from test_whole_stack import TopicReader, final_states, recompute

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def test_a_recording_plays_through(recordings, store_data):
    file = recordings / "spot_btcusdt_ethusdt_2024-08-08T2354.aggtrade.jsonl.gz"
    with gzip.open(file) as lines:
        recorded = {(t["s"], t["a"]): t for t in (json.loads(line)["data"] for line in lines)}
    stack = Stack(store_data / "recorded", "--recording", str(file), "--only", "exchange,ingest,second-stats")
    stack.environment["SYMBOLS"] = "btcusdt,ethusdt"
    try:
        stack.start()
        brokers = f"127.0.0.1:{stack.port(9092)}"
        published, raw = TopicReader(brokers, "binance.secondstat"), TopicReader(brokers, "binance.raw.aggtrade")
        poll_until(lambda: len(published.read()) >= 25, 60, "SecondStats of the recording")
        raw.read()
        trades = [json.loads(m.value()) for m in raw.messages if b'"aggTrade"' in m.value()]
        shifts = {trade["T"] - recorded[trade["s"], trade["a"]]["T"] for trade in trades}
        assert len(trades) > 100
        assert len(shifts) == 1
        for trade in trades:
            original = recorded[trade["s"], trade["a"]]
            assert {name: trade[name] for name in "pqflm"} == {name: original[name] for name in "pqflm"}
        recomputed = recompute(raw.messages)
        poll_until(lambda: recomputed.keys() <= final_states(published.read()).keys(), 30, "all recomputed seconds")
        found = final_states(published.messages)
        assert {key: found[key] for key in recomputed} == recomputed
        assert len(recomputed) >= 20
        published.close()
        raw.close()
        assert stack.stop()[0] == 0
    finally:
        stack.kill()
