"""Replays of real topics against the naive reference: the same bytes, whatever the range."""

import hashlib

import pytest
from raw_logs import realistic
from replay_parts import expected, fill

from flows.replay import Replay


@pytest.fixture(scope="module")
def log():
    return realistic(7)


@pytest.fixture(scope="module")
def topic(kafka, log):
    return fill(kafka, log)


def output(kafka, topic, start=None, end=None):
    replay = Replay(kafka, topic, start, end)
    lines = b"".join(lines for _, lines in replay.batches())
    return lines, replay.manifest()


def test_the_whole_log_is_what_the_reference_says(kafka, topic, log):
    lines, manifest = output(kafka, topic)
    assert lines == expected(log)
    assert manifest["sha256"] == hashlib.sha256(lines).hexdigest()
    assert manifest["seconds"] == lines.count(b"\n") > 100
    assert manifest["records"] == sum(map(len, log.partitions))
