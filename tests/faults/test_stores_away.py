"""Redis or Kafka away: the flow waits with bounded memory and goes on by itself; nothing is missing, nothing is wrong."""

import time
from signal import SIGTERM

import psutil
import pytest
from cases import MiniTickers, SecondStats
from conftest import LONG
from redis import Redis

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]
AWAY_S, FEED_S = (12, 10) if LONG else (7, 5)  # longer than a timeout, and than the feed: all of it comes after
# Of a process: 200 MB, and of each of eight partitions the 100,000 records that Kafka's client reads ahead (or 16 MB of
# them), half a KB each with what it keeps about them: 610 MB. A container has 1 GB.
BOUND_MB = 700
BACKLOG = 1_500_000  # which would be 950 MB and more if it were all read
LAYOUTS = [{}, {"workers": 2}, {"processes": 2}] if LONG else [{}]
WAYS = [("redis", "kill"), ("redis", "freeze"), ("kafka", "stop"), ("kafka", "kill"), ("kafka", "freeze")]
RUNS = [(SecondStats, *way) for way in (WAYS if LONG else [("redis", "freeze"), ("redis", "kill"), ("kafka", "kill")])]
RUNS += [(MiniTickers, *way) for way in WAYS if LONG]


def memory_mb(cluster):
    return max(psutil.Process(process.pid).memory_info().rss / 2**20 for process in cluster.processes)


def let_pass(seconds, cluster):
    """Time that a store is away; gives the largest RSS of a process in MB."""
    until, largest = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        assert cluster.running(), cluster.log.read_text()[-3000:]
        largest = max(largest, memory_mb(cluster))
        time.sleep(0.1)
    return largest


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(("flow", "store", "how"), RUNS, ids=lambda value: getattr(value, "module", value))
def test_the_flow_waits_and_goes_on(broker, redis_server, tmp_path, flow, layout, store, how):
    away = redis_server if store == "redis" else broker
    case = flow(broker, redis_server, tmp_path)
    with (
        case.run(**layout) as cluster,
        Redis.from_url(f"redis://{redis_server.address}") as redis,
        redis.pubsub() as pubsub,
    ):
        case.subscribe(pubsub)
        cluster.await_ready()
        feeding = case.feeding(1, FEED_S)
        case.await_some()
        away.down(how)
        largest = let_pass(AWAY_S, cluster)
        away.up()
        feeding.join()
        case.flush()
        published = case.await_everything(90)
        if how != "kill" or store != "redis":  # subscribers of a server that dies hear nothing of it
            case.await_channels(pubsub)
        case.check_redis(redis)
        cluster.signal(SIGTERM)
        assert cluster.wait(10) == {0}
        assert case.starts == 1
    seconds, again = sum(len(set(values)) for values in published), sum(len(v) - len(set(v)) for v in published)
    print(f"{seconds} records, {again} of them twice, {largest:.0f} MB at most")
    assert largest < BOUND_MB


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_memory_is_bounded(broker, redis_server, tmp_path, layout):
    """A large backlog while Redis is away: what is read ahead has a limit, and the rest stays in Kafka."""
    case = SecondStats(broker, redis_server, tmp_path)
    case.feed(0.2)
    case.feed_backlog(BACKLOG)
    redis_server.down("freeze")
    with case.run(snapshot_s=10, **layout) as cluster:
        largest = let_pass(20 if LONG else 12, cluster)
        redis_server.up()
        print(f"{largest:.0f} MB at most")
        assert largest < BOUND_MB
        cluster.signal(SIGTERM)
        assert cluster.wait(10) <= {0, 1}
