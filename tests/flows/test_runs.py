"""Runs against rows: the same outputs, the same state, byte for byte, whatever the log and the chunks."""

import json
import pickle
import random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flows import runs
from flows.domain.market import SCALE
from flows.domain.partition import PartitionStats, Rejected
from flows.domain.second_stat import SecondStat
from flows.records import decode_trades
from flows.runs import Closed, TradeRuns

BASE = 1_723_161_600_000
LATENESS, HORIZON = 200, 10_000


def trade(a, event, symbol="BTCUSDT", *, lag=0, price="100.5", size="0.25", maker="true", raws=1):
    head = "" if event is None else f'"E":{event},'
    at = (event if event is not None else BASE) - lag
    return (
        f'{{"e":"aggTrade",{head}"s":"{symbol}","a":{a},"p":"{price}","q":"{size}","f":{a * 2},"l":{a * 2 + raws - 1},'
        f'"T":{at},"m":{maker},"M":true}}'
    ).encode()


def by_rows(values, received):
    stats = PartitionStats(LATENESS, HORIZON)
    return texts(stats.process(zip(decode_trades(values), received, strict=True))), stats


def by_runs(values, received, chunk):
    stats = PartitionStats(LATENESS, HORIZON)
    folded, out = TradeRuns(stats), []
    for start in range(0, len(values), chunk):
        part = slice(start, start + chunk)
        taken = [*flat(folded.take(values[part], received[part]))]
        out += [(number, start + place, text) for number, place, text in texts(taken)]
    folded.settle()
    return [(n, p if n else 0, t) for n, p, t in out], stats


def flat(outputs):
    """Each output by itself; the JSON of those that were rendered natively is what the definition makes of them."""
    for output in outputs:
        if isinstance(output, Closed):
            assert output.json == [stat.to_json() for stat in output.stats()]
            yield from output.stats()
        else:
            yield output


def texts(outputs):
    return [(0, 0, o.to_json()) if isinstance(o, SecondStat) else (1, o.index, o.reason) for o in outputs]


def assert_same(values, chunks, received=None):
    received = received or [None] * len(values)
    expected, rows = by_rows(values, received)
    for chunk in chunks:
        found, stats = by_runs(values, received, chunk)
        assert found == expected
        assert stats.counts == rows.counts
        assert pickle.loads(stats.snapshot()) == pickle.loads(rows.snapshot())
    return expected, rows


@pytest.fixture(autouse=True)
def short_runs(monkeypatch):
    """Even runs of one trade, so that small logs are full of them."""
    monkeypatch.setattr(runs, "SHORTEST", 1)


AMOUNTS = (
    "1", "0.1", "61837.63000000", "0.00000001", "9999999999.99999999", "99999999999.99999999", "00.5", "1.", ".5",
    "1.123456789", "0", "0.00000000", "-1", "1e5", "", "999999999999999999", "1208925819614629.17470619",
)  # fmt: skip
NUMBERS = (
    "0", "7", "007", "-1", "1.0", "null", "true", '"7"', "999999999999999999", "9223372036854775807",
    "9223372036854775808", "99999999999999999999999", "9007199254740991", "9007199254740992", str(BASE),
)  # fmt: skip
PLAIN = {
    "e": '"aggTrade"', "E": str(BASE), "s": '"SOLUSDT"', "a": "5", "p": '"1.5"', "q": '"2"', "f": "1", "l": "3",
    "T": str(BASE), "m": "true", "M": "true",
}  # fmt: skip
amounts, numbers = st.sampled_from(AMOUNTS), st.sampled_from(NUMBERS)
symbols = st.sampled_from(["BTCUSDT", "ETHUSDT", "币安人生USDT", "A", "", 'A\\"B', "\\u0041", "BTC USDT", "BTCUSD"])


@st.composite
def near_misses(draw):
    """A trade with one thing about it that may be wrong."""
    fields = dict(PLAIN)
    order = list(fields)
    match draw(
        st.sampled_from(["number", "amount", "drop", "swap", "extra", "cut", "space", "symbol", "byte", "twice"])
    ):
        case "number":
            fields[draw(st.sampled_from("EaflTm"))] = draw(numbers)
        case "amount":
            fields[draw(st.sampled_from("pq"))] = f'"{draw(amounts)}"'
        case "drop":
            order.remove(draw(st.sampled_from(order)))
        case "swap":
            i = draw(st.integers(0, len(order) - 2))
            order[i], order[i + 1] = order[i + 1], order[i]
        case "extra":
            order.append("Z")
            fields["Z"] = draw(st.sampled_from(["1", "null", "{}"]))
        case "symbol":
            fields["s"] = f'"{draw(symbols)}"'
        case "twice":
            order.append(draw(st.sampled_from(order)))
        case "cut":
            return ("{" + ",".join(f'"{k}":{fields[k]}' for k in order) + "}").encode()[: draw(st.integers(0, 140))]
        case "space":
            return ("{" + ", ".join(f'"{k}":{fields[k]}' for k in order) + "}").encode()
        case "byte":
            text = bytearray(("{" + ",".join(f'"{k}":{fields[k]}' for k in order) + "}").encode())
            text[draw(st.integers(0, len(text) - 1))] = draw(st.integers(0, 255))
            return bytes(text)
    return ("{" + ",".join(f'"{k}":{fields[k]}' for k in order) + "}").encode()


@st.composite
def logs(draw):
    """Mostly plain trades of several symbols, with all that may come between them."""
    values, received, clock = [], [], BASE
    ids = {"BTCUSDT": 10, "ETHUSDT": 500, "币安人生USDT": 7, "ETHUSD": 3}
    for _ in range(draw(st.integers(1, 80))):
        clock += draw(st.sampled_from([0, 0, 1, 40, 300, 900, 2500]))
        kind = draw(st.sampled_from(["trade"] * 9 + ["heartbeat", "odd", "again", "none", "backfill", "subscription"]))
        symbol = draw(st.sampled_from(sorted(ids)))
        if kind == "heartbeat":
            values.append(b'{"e":"heartbeat","E":%d}' % clock)
        elif kind == "odd":
            values.append(draw(near_misses()))
        elif kind == "none":
            values.append(None)
        elif kind == "subscription":
            values.append(
                json.dumps({"e": "subscription", "s": symbol, "on": draw(st.booleans()), "E": clock}).encode()
            )
        elif kind == "again" and values:
            values.append(draw(st.sampled_from(values)))
        else:
            ids[symbol] += draw(st.sampled_from([1, 1, 1, 1, 1, 3, -1]))
            lag = draw(st.sampled_from([0, 1, 30, 400, 3000, 12_000, -1000, -1001]))
            event = None if kind == "backfill" else clock
            values.append(
                trade(ids[symbol], event, symbol, lag=lag, price=draw(amounts), size=draw(amounts),
                      maker=draw(st.sampled_from(["true", "false"])), raws=draw(st.integers(1, 3)))
            )  # fmt: skip
        received.append(draw(st.sampled_from([None, clock, clock, clock - 600_000, clock - 600_001])))
    values.append(b'{"e":"heartbeat","E":%d}' % (clock + 5000))
    return values, [*received, None]


@settings(max_examples=200, deadline=None)
@given(logs())
def test_runs_publish_and_keep_what_rows_do_whatever_the_chunks(log):
    assert_same(log[0], [1, 2, 7, 1000], log[1])


@settings(max_examples=200, deadline=None)
@given(st.lists(near_misses(), min_size=1, max_size=4))
@example([trade(5, BASE).replace(b'"a":5', b'"a":%d' % (2**63 - 1))])
@example([trade(5, BASE, "SOLUSDT").replace(b'"a":5', b'"a":%d' % (2**63 - 1)), trade(6, BASE, "SOLUSDT")])
def test_a_trade_that_is_nearly_plain_is_what_rows_make_of_it(odd):
    plain = [trade(100 + i, BASE + i) for i in range(3)]
    assert_same([*plain, *odd, trade(103, BASE + 5), b'{"e":"heartbeat","E":%d}' % (BASE + 9000)], [1, 1000])


@pytest.mark.parametrize("seed", range(20))
def test_long_runs_over_closing_seconds_with_stragglers_and_heartbeats(seed):
    rng, clock = random.Random(seed), BASE
    ids = dict.fromkeys(["BTCUSDT", "ETHUSDT", "币安人生USDT"], 100)
    values = []
    for _ in range(500):
        clock += rng.choice([0, 1, 20, 90, 300])
        symbol = rng.choice(sorted(ids))
        if rng.random() < 0.1:
            values.append(b'{"e":"heartbeat","E":%d}' % (clock - rng.choice([0, 0, 5000])))
            continue
        ids[symbol] += rng.choice([1] * 30 + [2])
        lag = rng.choice([*range(7)] * 8 + [150, 400, 1100, 1300, 2500, 2500, 11_500])
        event = None if rng.random() < 0.05 else clock
        values.append(
            trade(ids[symbol], event, symbol, lag=lag if event else BASE - clock + lag, price=f"{rng.randint(1, 9)}.5")
        )
    expected, _ = assert_same(values, [1, 130, 1000])
    revisions = [text for number, _, text in expected if number == 0 and b'"revision":0' not in text]
    assert len(revisions) > 10


def test_a_second_that_closes_in_a_run_takes_the_revisions_that_wait_along():
    values = [trade(1, BASE), b'{"e":"heartbeat","E":%d}' % (BASE + 1300), trade(2, BASE + 1400, lag=1390)]
    values += [trade(3, BASE + 5000), trade(4, BASE + 5001), trade(5, BASE + 7001), trade(6, BASE + 7002)]
    expected, _ = assert_same([*values, b'{"e":"heartbeat","E":%d}' % (BASE + 9900)], [1, 2, 3, 1000])
    seconds = [(stat["timestamp"] - BASE, stat["revision"]) for stat in (json.loads(text) for _, _, text in expected)]
    assert seconds == [(0, 0), (0, 1), (5000, 0), (7000, 0)]


def test_every_field_with_every_odd_value():
    odd = [(field, value) for field in "EaflTmM" for value in NUMBERS]
    odd += [(field, f'"{value}"') for field in "pq" for value in AMOUNTS]
    for field, value in odd:
        record = ("{" + ",".join(f'"{k}":{v}' for k, v in (PLAIN | {field: value}).items()) + "}").encode()
        values = [trade(100, BASE), record, trade(101, BASE + 5), b'{"e":"heartbeat","E":%d}' % (BASE + 9000)]
        assert_same(values, [1000])


def test_sums_are_exact_beyond_64_bits():
    most = "9999999999.99999999"
    values = [trade(i, BASE + i // 10, price=most, size=most, maker="false") for i in range(5000)]
    expected, _ = assert_same([*values, b'{"e":"heartbeat","E":%d}' % (BASE + 9000)], [5001])
    amount = 10**10 * SCALE - 1
    assert f'"taker_buy_quote_volume":"{5000 * amount * amount // SCALE**2}.' in expected[0][2].decode()


def test_numbers_of_every_length_are_written_as_the_definition_does():
    amounts = ["0.00000001", *(f"{10**n + n}.{n:08d}" for n in range(10)), "9999999999.99999999"]
    pairs = [(price, size) for price in amounts for size in amounts]
    values = [
        trade(10 ** (i % 17) + i, BASE, f"{'币' * (i % 12)}S{i}", price=price, size=size, maker="false", raws=10**6)
        for i, (price, size) in enumerate(pairs)
    ]
    expected, _ = assert_same([*values, b'{"e":"heartbeat","E":%d}' % (BASE + 9000)], [1000])
    assert len(expected) == len(pairs)


def restarted(values, at, before, after):
    """What is published from record `at` on by rows, and in runs, after a restart with another (lateness, horizon)."""
    found = []
    for by_row in (True, False):
        first, then = PartitionStats(*before), PartitionStats(*after)
        first.process(zip(decode_trades(values[:at]), [None] * at, strict=True))
        then.restore(first.snapshot())
        rest = values[at:]
        if by_row:
            found.append(then.process(zip(decode_trades(rest), [None] * len(rest), strict=True)))
        else:
            found.append(TradeRuns(then).process(rest, [None] * len(rest)))
    return found


def test_a_greater_lateness_after_a_restart_opens_what_was_published():
    values = [trade(1, BASE), b'{"e":"heartbeat","E":%d}' % (BASE + 1200), trade(2, BASE + 1210, lag=1205)]
    values.append(b'{"e":"heartbeat","E":%d}' % (BASE + 1220))
    by_row, in_runs = restarted(values, 2, (LATENESS, HORIZON), (2 * LATENESS, HORIZON))
    assert by_row == in_runs
    assert [stat.revision for stat in by_row] == [1]


def test_a_longer_horizon_after_a_restart_does_not_bring_back_what_was_forgotten():
    """Its trades are gone: a late one would be published as if it were the whole second."""
    end = BASE + 1000 + HORIZON + 5000
    values = [trade(1, BASE), b'{"e":"heartbeat","E":%d}' % end]
    late, kept = trade(2, end + 10, lag=end - BASE), trade(3, end + 20, lag=4000)
    rest = [*[late] * 20, *[kept] * 20, b'{"e":"heartbeat","E":%d}' % (end + 100)]
    by_row, in_runs = restarted([*values, *rest], 2, (LATENESS, HORIZON), (LATENESS, 10 * HORIZON))
    assert by_row == in_runs
    assert [output.index for output in by_row if isinstance(output, Rejected)] == [0]
    assert [output.timestamp for output in by_row if isinstance(output, SecondStat)] == [(end - 3980) // 1000 * 1000]


def test_a_log_whose_beginning_is_gone_has_no_second_that_may_have_begun_there():
    values = [trade(n, BASE + n * 10) for n in range(60, 500)]
    values += [trade(1000, BASE + 5010, lag=4000), trade(1001, BASE + 5020, lag=2900)]
    values += [b'{"e":"heartbeat","E":%d}' % (BASE + 9000)] * 3
    whole, _ = by_rows(values, [None] * len(values))
    expected = [one for one in whole if json.loads(one[2])["timestamp"] >= BASE + 2000]
    for chunk in (1, 7, 1000):
        stats = PartitionStats(LATENESS, HORIZON)
        stats.begin_amid(BASE + 600)
        restored = PartitionStats(LATENESS, HORIZON)
        restored.restore(stats.snapshot())
        runs, found = TradeRuns(restored), []
        for at in range(0, len(values), chunk):
            part = values[at : at + chunk]
            found += runs.process(part, [None] * len(part))
        assert texts(found) == expected


def test_more_symbols_than_a_run_may_have():
    values = [trade(i // 6000, BASE + i // 100, f"S{i % 6000}USDT") for i in range(20_000)]
    expected, _ = assert_same([*values, b'{"e":"heartbeat","E":%d}' % (BASE + 9000)], [7000, 20_001])
    assert len({text for _, _, text in expected}) >= 6000


def test_plain_trades_never_meet_the_rows(monkeypatch):
    rng = random.Random(3)
    ids = dict.fromkeys(["BTCUSDT", "ETHUSDT", "币安人生USDT"], 0)
    values = []
    for n in range(3000):
        symbol = rng.choice(sorted(ids))
        ids[symbol] += rng.choice([1] * 20 + [2])
        values.append(trade(ids[symbol], BASE + n, symbol, lag=rng.randint(0, 6)))
    expected, _ = by_rows(values, [None] * len(values))
    stats = PartitionStats(LATENESS, HORIZON)
    monkeypatch.setattr(stats, "process", lambda _: pytest.fail("went by rows"))
    assert texts(TradeRuns(stats).process(values, [None] * len(values))) == expected
