"""SIGTERM to each flow: it stops at a clean point, takes its snapshot, ends within 10 s, and goes on without loss."""

import re
import time
from itertools import product
from pathlib import Path
from signal import SIGABRT, SIGTERM

import pytest
from cases import MiniTickers, SecondStats
from conftest import LONG
from redis import Redis

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]
DRAIN_S = 10
LAYOUTS = {"1 worker": {}, "2 workers": {"workers": 2}, "2 processes": {"processes": 2}}
FLOWS = [SecondStats, MiniTickers]
RUNS = [*product(FLOWS, LAYOUTS)]
AWAY = [*product(FLOWS, LAYOUTS, ["redis", "kafka"], ["stop", "freeze"])]
if not LONG:
    RUNS = [run for run in RUNS if run != (MiniTickers, "2 workers")]
    AWAY = [(SecondStats, "1 worker", "redis", "freeze"), (MiniTickers, "2 processes", "redis", "stop")]


def name(value):
    return getattr(value, "module", value)


def begun(case, cluster, seconds=60):
    """Wait until the flow publishes."""
    before, deadline = sum(map(len, case.published())), time.monotonic() + seconds
    while sum(map(len, case.published())) == before:
        assert cluster.running()
        assert time.monotonic() < deadline, "the flow publishes nothing"


def drained(cluster):
    """Send SIGTERM; the set of exit codes."""
    cluster.await_ready()
    began = time.monotonic()
    cluster.signal(SIGTERM)
    codes = cluster.wait(DRAIN_S)
    print(f"ended with {codes} after {time.monotonic() - began:.1f} s")
    return codes


@pytest.mark.parametrize(("flow", "layout"), RUNS, ids=name)
def test_with_a_backlog_then_idle(broker, redis_server, tmp_path, flow, layout):
    case = flow(broker, redis_server, tmp_path)
    case.feed(0.5)
    for until in (0.5, 1):
        with case.run(**LAYOUTS[layout]) as cluster:
            feeding = case.feeding(until, 2)
            begun(case, cluster)
            assert drained(cluster) == {0}
            feeding.join()
    with case.run(**LAYOUTS[layout]) as cluster:
        case.await_everything()
        assert drained(cluster) == {0}
    published = case.published()
    assert published == case.expected  # by revision: nothing comes twice when every end was clean
    with Redis.from_url(f"redis://{redis_server.address}") as redis:
        case.check_redis(redis)


@pytest.mark.parametrize(("flow", "layout", "store", "how"), AWAY, ids=name)
def test_with_a_store_away(broker, redis_server, tmp_path, flow, layout, store, how):
    away = redis_server if store == "redis" else broker
    case = flow(broker, redis_server, tmp_path)
    with case.run(**LAYOUTS[layout]) as cluster:
        case.feed(0.3)
        begun(case, cluster)
        case.feed(0.6)
        away.down(how)
        codes = drained(cluster)
        # 0 where nothing was left to deliver. Bytewax aborts the peers of a process that ended with an error.
        assert codes <= ({0, 1, -SIGABRT} if layout == "2 processes" else {0, 1})
        assert codes == {0} or any(words in cluster.log.read_text() for words in ("is away", "does not answer"))
    away.up()
    case.feed(1)
    with case.run(**LAYOUTS[layout]) as cluster:
        case.await_everything()
        assert drained(cluster) == {0}
    with Redis.from_url(f"redis://{redis_server.address}") as redis:
        case.check_redis(redis)


@pytest.mark.parametrize("flow", FLOWS, ids=name)
def test_at_the_start_while_kafka_is_away(broker, redis_server, tmp_path, flow):
    case = flow(broker, redis_server, tmp_path)
    broker.down("freeze")
    with case.run() as cluster:
        until = time.monotonic() + 30
        while not handles_sigterm(cluster.processes[0].pid):
            assert time.monotonic() < until
        cluster.signal(SIGTERM)
        assert cluster.wait(DRAIN_S) == {0}


def handles_sigterm(pid):
    """Whether the process has installed a handler: until then SIGTERM ends it at once, when nothing is begun."""
    caught = int(re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text())[1], 16)
    return caught >> (SIGTERM - 1) & 1
