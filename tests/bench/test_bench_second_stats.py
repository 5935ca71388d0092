"""The benchmark of SecondStats measures what it says: every run over a topic counts the same seconds, whole."""

import json
import random
import subprocess
import sys
import uuid
from zlib import crc32

import pytest

from bench import harness, latency
from bench.second_stats import fill, one
from bench.totals import Totals
from flows.domain.second_stat import SecondStat

N = 30_000


@pytest.fixture(scope="module")
def topic(kafka):
    name = f"trades-{uuid.uuid4().hex[:8]}"
    fill(kafka, name, N, symbols=50, per_ms=5)
    return name


def tracker(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tracker", "bench", *arguments], capture_output=True, text=True, check=False, timeout=100
    )


@pytest.mark.parametrize(("sinks", "processes"), [("count", 1), ("real", 2)])
def test_the_flow_agrees_with_the_manuals_windows(kafka, valkey, topic, sinks, processes):
    where = ("--bootstrap", kafka, "--topic", topic, "--n", str(N))
    more = ("--sinks", sinks, "--redis", valkey, "--processes", str(processes))
    done = tracker("second-stats", *where, *more, "--json")
    assert done.returncode == 0, done.stderr
    ours = json.loads(done.stdout.splitlines()[-1])
    peer = one(["bench.peers", "fold", *where], None)
    assert ours["messages"] == N
    assert ours["stats"] >= 6 * 40  # 6 s of 50 symbols, not all of which trade in each
    same = ("messages", "stats", "volume_sum", "check")
    assert [ours[field] for field in same] == [peer[field] for field in same]


def test_a_topic_of_another_size_is_refused(kafka, topic):
    done = tracker("second-stats", "--bootstrap", kafka, "--topic", topic, "--n", "7", "--json")
    assert done.returncode
    assert f"holds {N} messages, not 7" in done.stderr


def test_an_option_of_another_benchmark_is_refused():
    done = tracker("second-stats", "--rate", "5")
    assert done.returncode == 1
    assert done.stderr.endswith("benchmark second-stats has no option --rate\n")


def test_totals_are_the_peers():
    rng = random.Random(1)
    stats = [
        SecondStat(f"币C{n}USDT", 1_700_000_000_000 + n * 1000, *(rng.randrange(10 ** rng.randint(1, 16)) for _ in range(5)),
                   rng.randrange(10 ** rng.randint(1, 30)), n, n % 2 * n, 0, 5, 6, 0)
        for n in range(2000)
    ]  # fmt: skip
    totals = Totals()
    totals.add([stat.to_json() for stat in stats])
    assert (totals.stats, totals.volume) == (len(stats), sum(stat.volume for stat in stats))
    lines = (" ".join(map(str, [s.symbol, s.timestamp // 1000, *s[2:10]])) for s in stats)
    assert totals.check == sum(crc32(line.encode()) for line in lines)
    with pytest.raises(ValueError, match="revised"):
        totals.add([stats[0]._replace(revision=1).to_json()])


def test_names_have_dashes():
    assert {"second-stats", "latency"} <= harness.benchmarks().keys()


def test_latency_counts_seconds_that_were_whole(monkeypatch):
    monkeypatch.setattr(latency, "WARM_UP_S", 2)
    figures = {figure.name: figure.value for figure in latency.run(rate=400, seconds=4, symbols=5)}
    assert figures["SecondStats counted"] >= 2 * 3
    assert figures["second's end to Redis, p50"] >= latency.ALLOWED_LATENESS_MS
