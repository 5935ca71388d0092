"""`tracker gaps` on a real ledger."""

import json
import os
import subprocess
import sys

import pytest
from confluent_kafka import Producer

from flows.channels import GAPS, all_topics, create_topics
from infra.local.part import free_port


def tracker(*words, **env):
    return subprocess.run(
        [sys.executable, "-m", "tracker", "gaps", *words],
        env={**os.environ, **env}, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip


def row(symbol, first, last, state, **more):
    return {"symbol": symbol, "first_missing_a": first, "last_missing_a": last, "state": state, "reason": "missing",
            "after_ms": 1_790_000_000_120, "before_ms": 1_790_000_000_250, "updated_ms": 1_790_000_001_000, **more}  # fmt: skip


# The session's ledger has rows of other tests too.
OURS = "tgausdt,TGBUSDT,币安账本USDT"


@pytest.fixture(scope="module")
def ledger(kafka):
    create_topics(kafka, all_topics(10**9))
    producer = Producer({"bootstrap.servers": kafka})
    for one in (row("TGBUSDT", 5, 7, "open"), row("币安账本USDT", 1, 1, "lost", after_ms=None),
                row("TGBUSDT", 5, 7, "backfilled"), row("TGAUSDT", 9, 9, "open")):  # fmt: skip
        producer.produce(GAPS.name, json.dumps(one), f"{one['symbol']}:{one['first_missing_a']}")
    producer.produce(GAPS.name, b"not a row", b"x")
    producer.flush(30)
    return kafka


def test_the_newest_state_of_each_row(ledger):
    answer = tracker("--json", "--symbols", OURS, BROKERS=ledger)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == [
        row("TGAUSDT", 9, 9, "open"), row("TGBUSDT", 5, 7, "backfilled"), row("币安账本USDT", 1, 1, "lost", after_ms=None)
    ]  # fmt: skip
    assert [
        r["symbol"] for r in json.loads(tracker("--json", "--symbols", OURS, "--state", "lost", BROKERS=ledger).stdout)
    ] == ["币安账本USDT"]


def test_as_a_table(ledger):
    answer = tracker("--symbols", OURS, BROKERS=ledger)
    assert answer.returncode == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert lines[0].split()[:1] == ["symbol"]
    assert "2026-09-21 14:13:20.250" in lines[2]
    assert lines[-1] == "1 open, 1 backfilled, 1 lost"


def test_wrong_words_and_no_kafka_are_said_plainly(ledger):
    assert "there is no state 'gone'" in tracker("--state", "gone", BROKERS=ledger).stderr
    answer = tracker(BROKERS=f"127.0.0.1:{free_port()}")
    assert answer.returncode == 1
    assert "can't read the gap ledger" in answer.stderr
    assert "Traceback" not in answer.stderr
