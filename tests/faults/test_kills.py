"""`kill -9` at random points under load, again and again: nothing is missing, nothing is wrong."""

import json
import os
import random
import time
from signal import SIGKILL, SIGTERM

import pytest
from cases import MiniTickers, SecondStats
from conftest import LONG
from redis import Redis

KILLS = 20 if LONG else 3
SEED = int(os.environ.get("FAULTS_SEED", "1"))
pytestmark = pytest.mark.faults
RUNS = [(SecondStats, {}), (SecondStats, {"processes": 2}), (SecondStats, {"workers": 2}), (MiniTickers, {})]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("flow", "layout"), RUNS if LONG else RUNS[:1], ids=lambda x: getattr(x, "module", str(x)))
def test_killed_again_and_again(broker, redis_server, tmp_path, flow, layout):
    rng = random.Random(SEED)
    case = flow(broker, redis_server, tmp_path)
    for number in range(1, KILLS + 1):
        with case.run(**layout) as cluster:
            if rng.random() < 0.9:  # the others are killed in their start
                cluster.await_ready()
            feeding = case.feeding(number / (KILLS + 1), 3)
            until = time.monotonic() + rng.uniform(0, 4)
            while time.monotonic() < until:  # a kill has no reason to wait for
                assert cluster.running(), cluster.log.read_text()[-3000:]
                time.sleep(0.01)
            victim = rng.choice(cluster.processes)
            victim.send_signal(SIGKILL)
            assert victim.wait(10) == -SIGKILL
            feeding.join()
    case.flush()
    with case.run(**layout) as cluster:
        case.feed(1)
        published = case.await_everything()
        cluster.signal(SIGTERM)
        assert cluster.wait(10) == {0}
    with Redis.from_url(f"redis://{redis_server.address}") as redis:
        case.check_redis(redis)
    records = [text for texts in case.expected for text in texts]
    revisions = sum(json.loads(text).get("revision", 0) > 0 for text in records)
    again = sum(map(len, published)) - len(records)
    print(
        f"{KILLS} kills survived, {len(records)} records compared, {revisions} of them revisions, {again} published again"
    )
