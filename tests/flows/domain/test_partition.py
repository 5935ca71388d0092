"""The SecondStat core against the naive reference, on logs as nasty as the exchange and the network make them."""

import json
import pickle
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive import NaiveStats

from flows.domain.packed import find
from flows.domain.partition import PartitionStats, Rejected
from flows.domain.second_stat import SecondStat
from flows.records import decode_trades

MIDNIGHT = 1_723_161_600_000
LATENESS, HORIZON = 200, 10_000


def trade(a, at, symbol="BTCUSDT", *, lag=0, price="100.5", size="0.25", maker=False, backfill=False):
    event = {} if backfill else {"E": at + lag}
    return {
        "e": "aggTrade", **event, "s": symbol, "a": a, "p": price, "q": size,
        "f": a * 2, "l": a * 2 + 1, "T": at, "m": maker, "M": True,
    }  # fmt: skip


def heartbeat(at):
    return {"e": "heartbeat", "E": at}


def encode(records):
    return [r if isinstance(r, bytes) else json.dumps(r, separators=(",", ":")).encode() for r in records]


def run(values, received=None, chunk=1000, stats=None):
    """(published JSON, rejected indexes, the state) of a log cut into chunks."""
    stats = stats or PartitionStats(LATENESS, HORIZON)
    received = received or [None] * len(values)
    published, rejected = [], []
    for start in range(0, len(values), chunk):
        part = slice(start, start + chunk)
        for output in stats.process(zip(decode_trades(values[part]), received[part], strict=True)):
            if isinstance(output, SecondStat):
                published.append(output.to_json())
            else:
                rejected.append(start + output.index)
    return published, rejected, stats


def final_states(published):
    """{(timestamp, symbol): JSON without revision} by the highest revision."""
    best = {}
    for text in published:
        stat = json.loads(text)
        key = stat["timestamp"], stat["symbol"]
        revision = stat.pop("revision")
        if key not in best or revision > best[key][0]:
            best[key] = revision, json.dumps(stat, separators=(",", ":"), ensure_ascii=False).encode()
    return {key: text for key, (_, text) in best.items()}


amounts = st.one_of(
    st.decimals("0.00000001", "99999", places=8).map(lambda d: f"{d:f}"),
    st.sampled_from(["1", "61837.63000000", "0.1", "0.00000001", "100.50"]),
)
broken = st.sampled_from([
    b"", b"{", b"null", b"[]", b"nonsense", b'{"e":"aggTrade"}\n{"e":"aggTrade"}', b'{"e":"aggTrade","z":[{}', b"{}]}",
    b'{"e":"aggTrade","E":1.5}', b'{"e":"depthUpdate","E":1723161600000}', b'{"e":"heartbeat"}', b'{"e":"heartbeat","E":true}',
    b'{"e":"aggTrade","E":1723161600000,"s":"X","a":1,"p":"1.123456789","q":"1","f":1,"l":1,"T":1723161600000,"m":true}',
    b'{"e":"aggTrade","E":1723161600000,"s":"X","a":1,"p":"1e5","q":"1","f":1,"l":1,"T":1723161600000,"m":true}',
    b'{"e":"aggTrade","E":1723161600000,"s":"X","a":1,"p":"1_0","q":"1","f":1,"l":1,"T":1723161600000,"m":true}',
    b'{"e":"aggTrade","E":1723161600000,"s":"X","a":1,"p":1.5,"q":"1","f":1,"l":1,"T":1723161600000,"m":true}',
    b'{"e":"aggTrade","E":1723161600000,"s":"X","a":1,"p":"0","q":"0","f":-1,"l":-1,"T":1723161600000,"m":true}',
    b'{"e":"aggTrade","E":1723161600000,"s":"X","a":1,"p":"1","q":"1","f":3,"l":1,"T":1723161600000,"m":true}',
    b'{"e":"aggTrade","E":1723161600000,"s":"X","a":1,"p":"1","q":"1","f":3,"l":3,"T":1723161601001,"m":true}',
])  # fmt: skip


@st.composite
def logs(draw):
    """A log over midnight: mostly in order, with duplicates, stragglers, backfill, heartbeats and poison."""
    records, clock = [], MIDNIGHT - 3000
    ids = {"BTCUSDT": 10, "ETHUSDT": 500, "币安人生USDT": 7}
    for _ in range(draw(st.integers(1, 60))):
        clock += draw(st.sampled_from([0, 0, 1, 40, 300, 900, 2500]))
        kind = draw(st.sampled_from(["trade"] * 8 + ["heartbeat", "broken", "skip", "again"]))
        symbol = draw(st.sampled_from(sorted(ids)))
        if kind == "heartbeat":
            records.append(heartbeat(clock))
        elif kind == "broken":
            records.append(draw(broken))
        elif kind == "again" and records:
            records.append(draw(st.sampled_from(records)))
        else:
            ids[symbol] += draw(st.sampled_from([1, 1, 1, 1, 3, -1]))
            lag = draw(st.sampled_from([0, 1, 30, 400, 3000, 12_000]))
            records.append(
                trade(ids[symbol], clock - lag, symbol, lag=lag, price=draw(amounts), size=draw(amounts),
                      maker=draw(st.booleans()), backfill=draw(st.integers(0, 9)) == 0)
            )  # fmt: skip
    return encode([*records, heartbeat(clock + 5000)])


@settings(max_examples=300, deadline=None)
@given(logs(), st.sampled_from([1, 2, 7, 1000]))
def test_equals_the_naive_reference_by_revision_whatever_the_chunks(values, chunk):
    naive = NaiveStats(LATENESS, HORIZON).run(values)
    published, rejected, stats = run(values, chunk=chunk)
    assert published == naive.published
    assert rejected == naive.rejected
    assert final_states(published) == naive.final
    assert stats.counts["duplicates"] == naive.duplicates


@settings(max_examples=150, deadline=None)
@given(logs(), st.data())
def test_a_snapshot_at_any_record_changes_nothing(values, data):
    cut = data.draw(st.integers(0, len(values)))
    before, _, stats = run(values[:cut])
    resumed = PartitionStats(LATENESS, HORIZON)
    resumed.restore(stats.snapshot())
    after, _, _ = run(values[cut:], stats=resumed)
    assert before + after == run(values)[0]


def test_a_snapshot_with_compressed_seconds_is_read():
    values = encode([
        trade(1, MIDNIGHT), trade(7, MIDNIGHT + 5, symbol="ETHUSDT"), heartbeat(MIDNIGHT + 1200),
        trade(2, MIDNIGHT + 10, lag=2000, price="90"), heartbeat(MIDNIGHT + 2100),
    ])  # fmt: skip
    before, _, stats = run(values[:3])
    state = pickle.loads(stats.snapshot())
    rows = {s: {n: row for n in ("BTCUSDT", "ETHUSDT") if (row := find(p, n))} for s, p in state["published"].items()}
    old = {second: zlib.compress(pickle.dumps(of_second)) for second, of_second in rows.items()}
    resumed = PartitionStats(LATENESS, HORIZON)
    resumed.restore(pickle.dumps({**state, "version": 1, "published": old}))
    after, _, _ = run(values[3:], stats=resumed)
    assert before + after == run(values)[0]
    assert len(after) == 1
    with pytest.raises(ValueError, match="version 3"):
        resumed.restore(pickle.dumps({**state, "version": 3}))


def test_a_straggler_makes_one_revision_at_the_next_heartbeat():
    values = encode([
        trade(1, MIDNIGHT), heartbeat(MIDNIGHT + 1200), trade(2, MIDNIGHT + 10, lag=2000, price="90"),
        trade(3, MIDNIGHT + 20, lag=2000, price="200"), heartbeat(MIDNIGHT + 2100), heartbeat(MIDNIGHT + 2200),
    ])  # fmt: skip
    stats = [json.loads(text) for text in run(values)[0]]
    assert [(s["revision"], s["low"], s["high"]) for s in stats] == [
        (0, "100.50000000", "100.50000000"), (1, "90.00000000", "200.00000000"),
    ]  # fmt: skip


def test_a_second_closes_exactly_at_its_lateness():
    early = run(encode([trade(1, MIDNIGHT), heartbeat(MIDNIGHT + 1199)]))[0]
    due = run(encode([trade(1, MIDNIGHT), heartbeat(MIDNIGHT + 1200)]))[0]
    assert early == []
    assert len(due) == 1


def test_the_end_of_the_input_closes_nothing():
    assert run(encode([trade(1, MIDNIGHT)]))[0] == []


def test_beyond_the_horizon_a_trade_goes_to_the_dlq_and_is_still_seen():
    late = trade(2, MIDNIGHT, lag=20_000)
    values = encode([trade(1, MIDNIGHT), heartbeat(MIDNIGHT + 1000 + HORIZON), late, late])
    published, rejected, stats = run(values)
    assert len(published) == 1
    assert rejected == [2]
    assert stats.counts["late"] == stats.counts["duplicates"] == 1


@pytest.mark.parametrize(("ahead", "poison"), [(600_000, []), (600_001, [1])])
def test_an_event_time_far_ahead_of_its_receipt_does_not_move_the_watermark(ahead, poison):
    values = encode([trade(1, MIDNIGHT), heartbeat(MIDNIGHT + ahead)])
    published, rejected, stats = run(values, received=[MIDNIGHT, MIDNIGHT])
    assert rejected == poison
    assert len(published) == (0 if poison else 1)
    assert stats.watermark == (MIDNIGHT if poison else MIDNIGHT + ahead)


def test_rejections_say_what_was_wrong():
    outputs = PartitionStats(LATENESS, HORIZON).process(
        zip(decode_trades([b"{", None, b'{"e":"kline"}']), [None] * 3, strict=True)
    )
    reasons = [output.reason for output in outputs if isinstance(output, Rejected)]
    assert [r.split(":")[0] for r in reasons] == ["bad JSON", "record without a value", "unknown event type 'kline'"]


def test_holes_are_owed_only_while_subscribed():
    on = {"e": "subscription", "s": "BTCUSDT", "on": True, "E": MIDNIGHT}
    owed = run(encode([trade(1, MIDNIGHT), trade(5, MIDNIGHT)]))[2]
    unowed = run(encode([trade(1, MIDNIGHT), on, trade(5, MIDNIGHT)]))[2]
    filled = run(encode([trade(1, MIDNIGHT), trade(3, MIDNIGHT), trade(2, MIDNIGHT)]))[2]
    assert (owed.holes, unowed.holes, filled.holes) == (1, 0, 0)


@given(st.lists(st.integers(0, 40), min_size=1))
def test_id_intervals_are_a_set(numbers):
    from flows.domain.intervals import IdIntervals

    ids, seen = IdIntervals(numbers[0]), {numbers[0]}
    for number in numbers[1:]:
        assert ids.add(number) is (number not in seen)
        seen.add(number)
    intervals = ids.intervals()
    assert {n for start, end in intervals for n in range(start, end)} == seen
    assert all(end < start for (_, end), (start, _) in pairwise(intervals))
    assert IdIntervals.of(intervals).intervals() == intervals
