"""Recordings into a real topic: what is written, once and only once, and what comes out of a replay."""

import contextlib
import gzip
import json
import os
import signal
import subprocess
import sys
import uuid
import zipfile

import pytest
import zstandard
from flow_process import poll_until
from naive import NaiveStats
from replay_parts import records, written

from flows.domain.errors import InvalidRange, InvalidSymbol, NotAlone, TopicIsNewer
from flows.domain.market import MAX_AMOUNT, SCALE
from flows.importing import TopicImport, merged, prepare_topic
from flows.partitioning import partition_of
from flows.recordings import RecordingFile
from flows.replay import Replay
from infra.recorded_lines import LONGEST_LINE

BASE = 1_723_161_255_000
SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")


def trade(number, symbol="BTCUSDT", every_ms=100):
    at = BASE + number * every_ms
    return {
        "e": "aggTrade", "E": at + 3, "s": symbol, "a": 10 + number, "p": f"{100 + number % 7}.50", "q": "0.25",
        "f": 900 + 2 * number, "l": 901 + 2 * number, "T": at, "m": number % 3 == 0, "M": True,
    }  # fmt: skip


def frame(record):
    text = json.dumps(record, separators=(",", ":"))
    return f'{{"stream":"{record["s"].lower()}@{record["e"]}","data":{text}}}\n'


def frames(numbers, symbols=SYMBOLS):
    return "".join(frame(trade(n, symbols[n % len(symbols)])) for n in numbers)


def recording(directory, numbers, name="one.jsonl", symbols=SYMBOLS):
    path = directory / name
    path.write_text(frames(numbers, symbols))
    return path


def do_import(kafka, topic, *paths, symbol=None):
    bad = []
    prepare_topic(kafka, topic)
    into = TopicImport(kafka, topic)
    try:
        for one in merged([RecordingFile(path, bad.append, symbol) for path in paths]):
            into.take(one)
        return into.finish(), bad
    finally:
        into.close()


def replayed(kafka, topic, *bounds):
    return b"".join(lines for _, lines in Replay(kafka, topic, *bounds).batches())


@pytest.fixture
def topic():
    return f"import-{uuid.uuid4().hex[:8]}"


def test_what_is_written_and_nothing_when_it_is_imported_again(kafka, topic, tmp_path):
    path = recording(tmp_path, range(300))
    counts, bad = do_import(kafka, topic, path)
    assert (counts.trades, counts.heartbeats, bad) == (300, 30 * 8, [])
    log = records(kafka, topic)
    for partition, entries in enumerate(log):
        seconds = [BASE + at * 1000 + 2000 for at in range(30)]
        assert [json.loads(value)["E"] for key, value, _ in entries if key is None] == seconds
        for key, value, timestamp in entries:
            assert timestamp == json.loads(value)["E"]
            assert key is None or partition == partition_of(key, 8)
    assert sorted(v for entries in log for k, v, _ in entries if k) == sorted(
        json.dumps(trade(n, SYMBOLS[n % 3]), separators=(",", ":")).encode() for n in range(300)
    )
    again, _ = do_import(kafka, topic, path)
    assert (again.trades, again.heartbeats, again.known_trades) == (0, 0, 300)
    assert records(kafka, topic) == log
    naive = {key: text for entries in log for key, text in NaiveStats().run([v for _, v, _ in entries]).final.items()}
    assert replayed(kafka, topic) == b"".join(naive[key] + b"\n" for key in sorted(naive))
    assert len(naive) == 90


def test_a_file_in_every_wrapping_is_the_same_log(kafka, tmp_path):
    text = frames(range(40))
    bare = "".join(json.dumps(trade(n, SYMBOLS[n % 3]), separators=(",", ":")) + "\n" for n in range(40))
    with zipfile.ZipFile(tmp_path / "z.zip", "w") as archive:
        archive.writestr("frames.jsonl", text)
    (tmp_path / "z.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "z.jsonl.zst").write_bytes(
        zstandard.compress(text[:2000].encode()) + zstandard.compress(text[2000:].encode())
    )
    (tmp_path / "bare.jsonl").write_text(bare)
    expected = None
    for name in ("z.zip", "z.jsonl.gz", "z.jsonl.zst", "bare.jsonl"):
        topic = f"wrapped-{uuid.uuid4().hex[:8]}"
        counts, bad = do_import(kafka, topic, tmp_path / name)
        assert (counts.trades, bad) == (40, [])
        log = records(kafka, topic)
        assert expected in (None, log)
        expected = log
    for name in ("z.zip", "z.jsonl.gz", "z.jsonl.zst"):
        capitals = (tmp_path / name).rename(tmp_path / name.upper())
        assert len([*RecordingFile(capitals, bad.append)]) == 40


def test_public_csv_in_ms_and_us_with_and_without_header(kafka, tmp_path):
    rows = [(n, t["p"], t["q"], t["f"], t["l"], t["T"], str(t["m"])) for n, t in ((n, trade(n)) for n in range(50))]
    header = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
    texts = {
        "BTCUSDT-aggTrades-2024-08-08.csv": "".join(",".join(map(str, row)) + ",True\n" for row in rows),
        "BTCUSDT-aggTrades-2025-08-08.csv": header
        + "".join(",".join(map(str, (*row[:5], row[5] * 1000 + 7, row[6].lower()))) + "\n" for row in rows),
        "other.csv": "".join(",".join(map(str, row)) + "\n" for row in rows),
    }
    expected = None
    for name, text in texts.items():
        topic = f"csv-{uuid.uuid4().hex[:8]}"
        (tmp_path / name).write_text(text)
        if name == "other.csv":
            with pytest.raises(InvalidSymbol, match="whose trades"):
                do_import(kafka, topic, tmp_path / name)
        counts, bad = do_import(kafka, topic, tmp_path / name, symbol="btcusdt" if name == "other.csv" else "ethusdt")
        assert (counts.trades, bad) == (50, [])
        log = records(kafka, topic)
        assert expected in (None, log)
        expected = log
        lines = replayed(kafka, topic).splitlines()
        assert [json.loads(line)["trade_count"] for line in lines] == [20] * 5  # 10 aggregates of 2 trades a second


def test_single_trades_are_grouped(kafka, topic, tmp_path):
    runs = [3, 1, 2]  # of trades with one T, p and m
    lines, number = [], 500
    for at, size in enumerate(runs):
        for _ in range(size):
            record = {"e": "trade", "E": BASE + at + 5, "s": "BTCUSDT", "t": number, "p": f"{10 + at}.0", "q": "0.5",
                      "b": 1, "a": 2, "T": BASE + at, "m": False, "M": True}  # fmt: skip
            lines.append(frame(record))
            number += 1
    hole = {"e": "trade", "E": BASE + 9, "s": "BTCUSDT", "t": 600, "p": "12.0", "q": "1", "T": BASE + 2, "m": False}
    lines += [lines[0], frame(hole)]  # a duplicate is left out; ids in between are missing
    path = tmp_path / "trades.jsonl"
    path.write_text("".join(lines))
    counts, bad = do_import(kafka, topic, path)
    assert (counts.trades, bad) == (4, [])
    values = [json.loads(v) for entries in records(kafka, topic) for k, v, _ in entries if k]
    assert [(v["a"], v["f"], v["l"], v["q"]) for v in values] == [
        (500, 500, 502, "1.50000000"), (501, 503, 503, "0.50000000"), (502, 504, 505, "1.00000000"),
        (600, 600, 600, "1.00000000"),
    ]  # fmt: skip


def test_a_bad_trade_is_told_by_its_own_number_and_spoils_no_group(kafka, topic, tmp_path):
    good = {"e": "trade", "E": BASE + 5, "s": "BTCUSDT", "t": 1, "p": "9", "q": "1", "T": BASE, "m": True}
    half = str(MAX_AMOUNT // SCALE // 2 + 1)  # twice that is more than an aggTrade may have
    changes = [
        {}, {"p": "0"}, {"t": 2}, {"t": 3, "q": "0"}, {"t": 3, "T": BASE + 5000}, {"t": -1}, {"t": 3, "s": ""},
        {"t": 3, "x": "deep"}, {"t": 3, "E": 1 << 53, "T": BASE}, {"t": 3},
        {"t": 5, "q": half}, {"t": 6, "q": half}, {"t": 7, "p": "0"},
    ]  # fmt: skip
    path = tmp_path / "trades.jsonl"
    path.write_text("".join(frame(good | change) for change in changes).replace('"deep"', "[" * 5000 + "]" * 5000))
    counts, bad = do_import(kafka, topic, path)
    assert [line.number for line in bad] == [2, 4, 5, 6, 7, 8, 9, 13]
    values = [json.loads(v) for entries in records(kafka, topic) for k, v, _ in entries if k]
    assert [(v["a"], v["f"], v["l"]) for v in values] == [(1, 1, 3), (5, 5, 5), (6, 6, 6)]
    assert (counts.trades, counts.heartbeats) == (3, 8)


def test_bad_lines_are_told_by_number_and_others_kept(kafka, topic, tmp_path):
    lines = frames(range(20)).splitlines(keepends=True)
    lines[3] = "{broken\n"
    lines[7] = frame(trade(7) | {"p": "1.123456789"})
    lines[9] = "what is this\n"
    lines[11] = '{"stream":"btcusdt@kline_1s","data":{"e":"kline","E":1,"s":"BTCUSDT"}}\n'
    lines.append("\n")
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(lines))
    counts, bad = do_import(kafka, topic, path)
    assert counts.trades == 16
    assert [(line.number, line.torn) for line in bad] == [(4, False), (8, False), (10, False)]
    assert "more than 8 decimals" in bad[1].reason


def test_what_a_torn_file_still_says_is_kept_and_the_whole_file_then_goes_on(kafka, topic, tmp_path):
    whole = tmp_path / "whole.jsonl.gz"
    whole.write_bytes(gzip.compress(frames(range(3000)).encode()))
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    counts, bad = do_import(kafka, topic, torn)
    assert 500 < counts.trades < 2500
    assert [(line.number, line.torn) for line in bad] == [(counts.trades + 1, True)]
    rest, bad = do_import(kafka, topic, whole)
    assert (rest.known_trades, rest.trades, bad) == (counts.trades, 3000 - counts.trades, [])
    other = f"{topic}-whole"
    do_import(kafka, other, whole)
    assert replayed(kafka, topic) == replayed(kafka, other)


def test_older_files_are_refused_and_newer_ones_follow(kafka, topic, tmp_path):
    older = recording(tmp_path, range(200), "older.jsonl")
    first = recording(tmp_path, range(1000, 1205), "first.jsonl")
    second = recording(tmp_path, range(1205, 1400), "second.jsonl")  # goes on within a second
    do_import(kafka, topic, first)
    with pytest.raises(TopicIsNewer, match="2024-08-08T23:54:15"):
        do_import(kafka, topic, older)
    log = records(kafka, topic)
    assert do_import(kafka, topic, second)[0].trades == 195
    assert do_import(kafka, topic, first)[0].trades == 0
    assert [entries[: len(before)] for entries, before in zip(records(kafka, topic), log, strict=True)] == log
    merged_topic = f"{topic}-merged"
    do_import(kafka, merged_topic, second, first)
    assert replayed(kafka, topic) == replayed(kafka, merged_topic)
    with pytest.raises(InvalidRange, match="live"):
        prepare_topic(kafka, "binance.raw.aggtrade")


def test_a_late_trade_at_the_end_counts(kafka, topic, tmp_path):
    """Of a second that is closed: it is published again at the next heartbeat, so there must be one."""
    late = trade(100) | {"T": BASE + 50, "E": BASE + 20_003}
    path = tmp_path / "late.jsonl"
    path.write_text(frames(range(99), ["BTCUSDT"]) + frame(late))
    assert do_import(kafka, topic, path)[0].trades == 100
    first, *_ = replayed(kafka, topic).splitlines()
    assert json.loads(first)["trade_count"] == 22
    log = records(kafka, topic)
    assert do_import(kafka, topic, path)[0].trades == 0
    assert records(kafka, topic) == log


def run_import(kafka, topic, *arguments):
    command = [sys.executable, "-m", "tracker", "import", *map(str, arguments), "--topic", topic]
    return subprocess.Popen(
        command, env={**os.environ, "BROKERS": kafka}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(("name", "seconds"), [
    ("spot_btcusdt_ethusdt_2024-08-08T2354.aggtrade.jsonl.gz", 1000),
    ("spot_ltcusdt_2025-06-22T0500.aggtrade.jsonl.gz", 10_000),
])  # fmt: skip
def test_a_recording_imported_and_replayed_is_what_the_reference_makes_of_its_frames(
    kafka, topic, recordings, name, seconds
):
    counts, bad = do_import(kafka, topic, recordings / name)
    with gzip.open(recordings / name) as lines:
        values = [line.partition(b'"data":')[2].rstrip()[:-1] for line in lines]
    assert (counts.trades, bad) == (len(values), [])
    values.append(b'{"e":"heartbeat","E":%d}' % (json.loads(values[-1])["E"] + 5000))
    final = NaiveStats().run(values).final
    assert replayed(kafka, topic) == b"".join(final[key] + b"\n" for key in sorted(final))
    assert len(final) > seconds


def test_killed_and_begun_again_it_is_the_same_log(kafka, topic, tmp_path):
    path = recording(tmp_path, range(60_000))
    process = run_import(kafka, topic, path)
    poll_until(lambda: written(kafka, topic) > 3000, what="the import's begin")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL
    part = written(kafka, topic)
    again = run_import(kafka, topic, path, "--json")
    out, errors = again.communicate(timeout=100)
    assert again.returncode == 0, errors
    counts = json.loads(out)
    assert counts["known_trades"] > 0
    assert counts["trades"] > 0
    whole = f"{topic}-whole"
    do_import(kafka, whole, path)
    assert part < written(kafka, topic) == written(kafka, whole)
    assert records(kafka, topic) == records(kafka, whole)


def test_the_command_tells_torn_files_and_bad_lines_by_its_exit(kafka, topic, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(frames(range(5)) + "no frame\n")
    first, strict = run_import(kafka, topic, path), run_import(kafka, f"{topic}-strict", path, "--strict")
    for process, code in ((first, 0), (strict, 1)):
        out, errors = process.communicate(timeout=60)
        assert process.returncode == code, errors
        assert "line 6: neither a frame" in errors
        assert "5 trades and" in out


HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"


def zipped(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def test_each_file_in_a_zip_has_its_own_symbol_and_header(tmp_path):
    members = {f"{s}-aggTrades-1.csv": f"{HEADER}7,{s[0]}1,1,1,1,{BASE},True\n" for s in ("BTCUSDT", "ETHUSDT")}
    members = {name: text.replace("B1", "5").replace("E1", "6") for name, text in members.items()}
    bad = []
    found = list(RecordingFile(zipped(tmp_path / "BTCUSDT-aggTrades-all.zip", members), bad.append))
    assert [(one.symbol, json.loads(one.value)["p"]) for one in found] == [("BTCUSDT", "5"), ("ETHUSDT", "6")]
    assert bad == []


def test_a_symbol_recorded_by_two_streams_counts_once(tmp_path):
    path, one = tmp_path / "both.jsonl", trade(1)
    single = {"e": "trade", **{k: one[k] for k in "EspqTm"}, "t": one["f"]}
    path.write_text(frame(one) + frame(single) + frame({**single, "s": "ETHUSDT"}))
    file = RecordingFile(path, lambda line: pytest.fail(line.reason))
    assert [recorded.symbol for recorded in file] == ["BTCUSDT", "ETHUSDT"]
    assert file.skipped == 1


def test_two_imports_at_once_say_so(kafka, topic, tmp_path):
    early = RecordingFile(recording(tmp_path, range(30)), pytest.fail)
    late = RecordingFile(recording(tmp_path, range(40_000, 40_030), "two.jsonl"), pytest.fail)
    prepare_topic(kafka, topic)
    one, two = TopicImport(kafka, topic), TopicImport(kafka, topic)
    try:
        for into, file in ((one, early), (two, late)):
            for trade_ in file:
                into.take(trade_)
        with contextlib.suppress(NotAlone):  # the first to end may have seen nothing of the other
            one.finish()
        with pytest.raises(NotAlone, match="another topic"):
            two.finish()
    finally:
        one.close()
        two.close()


def test_trades_that_no_second_will_count_are_told(kafka, topic, tmp_path):
    path = tmp_path / "unsorted.jsonl"
    path.write_text(frames(range(40_000, 40_010)) + frames(range(10)))
    counts, _ = do_import(kafka, topic, path)
    assert (counts.trades, counts.late_trades) == (20, 10)


@pytest.mark.parametrize("time", [BASE // 1000, BASE * 10**6])
def test_a_time_in_another_unit_is_a_bad_line(tmp_path, time):
    path, bad = tmp_path / "BTCUSDT-aggTrades-1.csv", []
    path.write_text(f"1,1,1,1,1,{time},True\n")
    assert list(RecordingFile(path, bad.append)) == []
    assert "neither in ms nor in µs" in bad[0].reason


def test_a_first_row_that_is_damaged_is_no_header(tmp_path):
    path, bad = tmp_path / "BTCUSDT-aggTrades-1.csv", []
    path.write_text(f"x0,1,1,0,0,{BASE},True\n1,1,1,1,1,{BASE},True\n")
    assert [one.agg_id for one in RecordingFile(path, bad.append)] == [1]
    assert [(line.number, line.reason[:22]) for line in bad] == [(1, "not a row of aggTrades")]


@pytest.mark.parametrize("what", ["encrypted", "method", "lzma", "bzip2"])
def test_a_zip_that_can_not_be_unpacked_is_torn(tmp_path, what):
    method = {"lzma": zipfile.ZIP_LZMA, "bzip2": zipfile.ZIP_BZIP2}.get(what, zipfile.ZIP_STORED)
    rows = "".join(f"{n},1,1,{n},{n},{BASE + n},True\n" for n in range(2000))
    path, bad = zipped(tmp_path / "BTCUSDT-aggTrades-1.zip", {"1.csv": rows}, method), []
    data = bytearray(path.read_bytes())
    head = data.find(b"PK\x01\x02")
    if what == "encrypted":
        data[6] |= 1
        data[head + 8] |= 1
    elif what == "method":
        data[8] = data[head + 10] = 9
    else:
        data[100 : head - 100] = bytes(byte ^ 0x55 for byte in data[100 : head - 100])
    path.write_bytes(data)
    list(RecordingFile(path, bad.append))
    assert [line.torn for line in bad] == [True]


def test_a_line_without_an_end_is_one_bad_line(tmp_path):
    path, bad = tmp_path / "bomb.jsonl.gz", []
    with gzip.open(path, "wb") as file:
        file.write(frame(trade(1)).encode() + b"{" + b"0" * (3 * LONGEST_LINE) + b"\n" + frame(trade(2)).encode())
    file = RecordingFile(path, bad.append)
    assert [one.agg_id for one in file] == [11, 12]
    assert [line.number for line in bad] == [2]
    assert max(map(len, file.file)) <= LONGEST_LINE
