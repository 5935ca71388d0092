"""Recordings into a real topic: what is written, once and only once, and what comes out of a replay."""

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
from naive import NaiveStats
from replay_parts import records

from flows.domain.errors import InvalidRange, InvalidSymbol, TopicIsNewer
from flows.importing import TopicImport, merged, prepare_topic
from flows.partitioning import partition_of
from flows.recordings import RecordingFile
from flows.replay import Replay

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
