"""Replays of real topics against the naive reference: the same bytes, whatever the range and however it is run."""

import contextlib
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from adversarial_log import adversarial
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from raw_logs import MIDNIGHT, Log, realistic
from replay_parts import expected, fill

from flows.domain.errors import InvalidRange, NoTopic, OutOfRange
from flows.domain.times import iso
from flows.partitioning import partition_of
from flows.replay import Replay, ReplaySettings, parse_bound

LAST_PARTITION = 7


@pytest.fixture(scope="module")
def log():
    return realistic(7)


@pytest.fixture(scope="module")
def topic(kafka, log):
    return fill(kafka, log)


def output(kafka, topic, start=None, end=None, settings=None, until=None):
    replay = Replay(kafka, topic, start, end, settings, until)
    lines = b"".join(lines for _, lines in replay.batches())
    return lines, replay.manifest()


def test_the_whole_log_is_what_the_reference_says(kafka, topic, log):
    lines, manifest = output(kafka, topic)
    assert lines == expected(log)
    assert manifest["sha256"] == hashlib.sha256(lines).hexdigest()
    assert manifest["seconds"] == lines.count(b"\n") > 100
    assert manifest["records"] == sum(map(len, log.partitions))
    assert output(kafka, topic) == (lines, manifest)
    stats = [*Replay(kafka, topic).seconds()]
    assert b"".join(stat.final_state() + b"\n" for stat in stats) == lines


@pytest.mark.parametrize(
    ("from_ms", "to_ms"), [(0, 5000), (1, 5999), (-3000, 3000), (-1500, 2500), (-10_000, 0), (999, 2000)]
)
def test_a_second_that_the_range_cuts_is_not_there(kafka, topic, log, from_ms, to_ms):
    start, end = MIDNIGHT + from_ms, MIDNIGHT + to_ms
    lines, _ = output(kafka, topic, start, end)
    assert lines == expected(log, start, end)
    timestamps = {json.loads(line)["timestamp"] for line in lines.splitlines()}
    assert timestamps == {*range(-(-start // 1000) * 1000, end // 1000 * 1000, 1000)}


def test_a_trade_whose_event_time_is_a_second_early_is_in_the_range(kafka):
    log, record = Log("early"), {"e": "aggTrade", "s": "BTCUSDT", "p": "1", "q": "2", "m": True}
    for number, (event, at) in enumerate([(-1000, 0), (-999, -500), (1500, 1500), (2600, 2600)]):
        more = {"E": MIDNIGHT + event, "T": MIDNIGHT + at, "a": number, "f": number, "l": number}
        log.trade(record | more)
    log.heartbeats(MIDNIGHT + 9000)
    lines, _ = output(kafka, fill(kafka, log), MIDNIGHT, MIDNIGHT + 2000)
    assert lines == expected(log, MIDNIGHT, MIDNIGHT + 2000)
    assert [json.loads(line)["timestamp"] for line in lines.splitlines()] == [MIDNIGHT, MIDNIGHT + 1000]


def test_a_log_that_means_harm(kafka):
    log = adversarial(3)
    lines, manifest = output(kafka, fill(kafka, log))
    assert lines == expected(log)
    assert manifest["seconds"] > 100
    for name in ("duplicates", "late", "rejected", "invalid_rows"):
        assert sum(part[name] for part in manifest["partitions"].values()) > 0, name


def test_it_stops_when_nothing_of_the_range_can_change(kafka, topic, log):
    """With a horizon of 2 s, a range that ends in the middle is read little further, to the very record."""
    settings = ReplaySettings(revision_horizon_ms=2000)
    lines, manifest = output(kafka, topic, None, MIDNIGHT, settings)
    for number, part in manifest["partitions"].items():
        entries = log.partitions[int(number)]
        events = [json.loads(entry.value).get("E", 0) for entry in entries]
        assert part["end"] < len(entries)
        assert max(events[: part["end"]]) >= MIDNIGHT + 2000 > max(events[: part["end"] - 1])
    assert lines
    assert output(kafka, topic, None, MIDNIGHT, settings) == (lines, manifest)


def test_by_offset_it_is_the_same_as_by_time(kafka, topic, log):
    start = MIDNIGHT - 5000
    offsets = {}
    for partition, entries in enumerate(log.partitions):
        watermark = 0
        for offset, entry in enumerate(entries):
            if watermark > start - 1000:
                offsets[partition] = offset
                break
            watermark = max(watermark, json.loads(entry.value).get("E", 0))
    ends = {partition: len(entries) for partition, entries in enumerate(log.partitions)}
    by_time, _ = output(kafka, topic, start)
    assert output(kafka, topic, offsets, ends)[0] == by_time == expected(log, start)
    partition = partition_of("BTCUSDT", len(offsets))
    lines, manifest = output(kafka, topic, {partition: offsets[partition]})
    assert [*manifest["partitions"]] == [str(partition)]
    named = {json.loads(line)["symbol"] for line in lines.splitlines()}
    assert lines == b"".join(line + b"\n" for line in by_time.splitlines() if json.loads(line)["symbol"] in named)


def test_an_end_by_offset_closes_nothing(kafka, topic, log):
    """What the reference has published before that record, and nothing more."""
    from naive import NaiveStats

    end = len(log.partitions[LAST_PARTITION]) // 2
    entries = log.partitions[LAST_PARTITION][:end]
    naive = NaiveStats().run([e.value for e in entries], [e.received_ms for e in entries])
    lines, manifest = output(kafka, topic, {LAST_PARTITION: 0}, {LAST_PARTITION: end})
    assert lines == b"".join(naive.final[key] + b"\n" for key in sorted(naive.final))
    assert manifest["partitions"]["7"]["end"] == end


def test_a_pass_until_where_an_earlier_one_ended_is_that_pass_though_the_log_has_grown(kafka, log):
    early, later = Log("grows"), Log("later")
    for number, entries in enumerate(log.partitions):
        some = len(entries) // (number + 2)
        early.partitions[number], later.partitions[number] = entries[:some], entries[some:]
    topic = fill(kafka, early)
    middle = max(entry.timestamp for entry in early.partitions[0])  # partitions of fewer records end before
    held = [(p, len(entries)) for p, entries in enumerate(early.partitions)]
    ranges = [
        (None, None), (None, MIDNIGHT + 10**6), (None, middle), (middle - 8000, middle + 10**6), (middle - 2000, None),
        ({p: size // 2 for p, size in held}, middle + 10**6), ({p: size - 1 for p, size in held}, middle - 20_000),
        (middle - 8000, dict(held)),
    ]  # fmt: skip
    passes = []
    for start, end in ranges:
        with contextlib.suppress(InvalidRange):
            passes.append((start, end, *output(kafka, topic, start, end)))
    assert len(passes) >= 7
    fill(kafka, later, topic)
    for start, end, lines, manifest in passes:
        until = {int(p): part["end"] for p, part in manifest["partitions"].items()}
        assert output(kafka, topic, start, end, until=until) == (lines, manifest)
        grown = Replay(kafka, topic, start, end).range.partitions
        assert isinstance(end, dict) or any(part.end > until[part.partition] for part in grown)


def test_errors_say_what_there_is(kafka, topic, log):
    def problem(error, *bounds, name=topic):
        with pytest.raises(error) as caught:
            output(kafka, name, *bounds)
        return str(caught.value)

    assert "no topic nowhere" in problem(NoTopic, name="nowhere")
    assert "empty" in problem(InvalidRange, MIDNIGHT, MIDNIGHT)
    assert "no whole second" in problem(InvalidRange, MIDNIGHT + 1, MIDNIGHT + 1500)
    assert "2024-08-08T23:59" in problem(InvalidRange, MIDNIGHT + 10**9, MIDNIGHT + 2 * 10**9)
    assert "not one second" in problem(InvalidRange, MIDNIGHT - 10**9, MIDNIGHT - 9 * 10**8)
    assert "empty" in problem(InvalidRange, {0: 5}, {0: 5})
    assert "no partition 9" in problem(InvalidRange, {9: 0})
    assert "different partitions" in problem(InvalidRange, {0: 0}, {1: 10})
    assert f"ends at 0:{len(log.partitions[0])}" in problem(OutOfRange, {0: 10**9})
    assert "holds no records" in problem(InvalidRange, parse_bound("9" * 30))
    assert output(kafka, topic, None, parse_bound("9" * 30))[0] == output(kafka, topic)[0]
    for text in ("yesterday", "1:2,", "0:1,0:2", "-5", ""):
        with pytest.raises(InvalidRange):
            parse_bound(text)
    assert (
        parse_bound("2024-08-09T02:00:00+02:00") == parse_bound("2024-08-09") == parse_bound(str(MIDNIGHT)) == MIDNIGHT
    )
    assert parse_bound("0:5,3:7") == {0: 5, 3: 7}
    assert (iso(MIDNIGHT), iso(MIDNIGHT + 1), iso(1 << 53)) == (
        "2024-08-09T00:00:00Z", "2024-08-09T00:00:00.001Z", "9007199254740992 ms",
    )  # fmt: skip


def test_out_of_retention_it_names_the_earliest(kafka, log):
    topic = fill(kafka, log)
    removed = {p: len(entries) // 3 for p, entries in enumerate(log.partitions)}
    admin = AdminClient({"bootstrap.servers": kafka})
    deleted = admin.delete_records([TopicPartition(topic, p, offset) for p, offset in removed.items()])
    assert all(future.result(20).low_watermark for future in deleted.values())
    with pytest.raises(OutOfRange, match=f"earliest available offset is 2:{removed[2]}"):
        output(kafka, topic, {2: 0})
    first_ms = log.partitions[0][0].timestamp
    with pytest.raises(OutOfRange, match=f"earliest available is .*offset 0:{removed[0]}"):
        output(kafka, topic, first_ms + 2000)
    lines, _ = output(kafka, topic)  # all there is begins with whole seconds
    assert {*lines.splitlines()} < {*expected(log).splitlines()}
    later = max(log.partitions[p][offset].timestamp for p, offset in removed.items()) + 5000
    assert output(kafka, topic, later)[0] == expected(log, later)


def run_command(kafka, *arguments, cwd=None):
    command = [sys.executable, "-m", *map(str, arguments)]
    environment = {**os.environ, "BROKERS": kafka, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, cwd=cwd, check=False)


def test_the_command_writes_lines_and_a_manifest(kafka, topic, log, tmp_path):
    out = tmp_path / "out.jsonl"
    done = run_command(kafka, "tracker", "replay", "--topic", topic, "--to", "2024-08-09T00:00:05Z", "--out", out)
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert out.read_bytes() == expected(log, 0, MIDNIGHT + 5000)
    assert manifest["sha256"] == hashlib.sha256(out.read_bytes()).hexdigest()
    assert (manifest["topic"], manifest["from"], manifest["to"]) == (topic, None, MIDNIGHT + 5000)
    assert f"{manifest['records']:,} records" in done.stderr
    failed = run_command(kafka, "tracker", "replay", "--topic", "nowhere", "--out", tmp_path / "none.jsonl")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "error: there is no topic nowhere\n"
    assert [*tmp_path.iterdir()] == [out]


@pytest.mark.parametrize("more", [("-w", "2"), ("-p", "2")])
def test_as_a_dataflow_with_several_workers_it_is_the_same(kafka, topic, log, tmp_path, more):
    flow = f"flows.replay:main('{topic}', 'out.jsonl', end={MIDNIGHT + 5000})"
    module = "bytewax.run" if more[0] == "-w" else "bytewax.testing"
    done = run_command(kafka, module, flow, *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.jsonl").read_bytes() == expected(log, 0, MIDNIGHT + 5000)
    manifest = json.loads((tmp_path / "out.jsonl.manifest.json").read_text())
    assert manifest == output(kafka, topic, None, MIDNIGHT + 5000)[1]
