"""The whole matrix, for each seed of `DETERMINISM_SEEDS` (1,2): `make test-determinism`."""

import os
import random
from itertools import product
from signal import SIGKILL, SIGTERM

import pytest
from adversarial_log import adversarial
from clocks import wall_clock
from raw_logs import digest, realistic, recorded
from varied_runs import Plan, compare

pytestmark = pytest.mark.timeout(300)
SEEDS = [int(seed) for seed in os.environ.get("DETERMINISM_SEEDS", "1,2").split(",")]
CHUNKS = [1, 7, 1000, 10_000]
LAYOUTS = [{}, {"workers": 2}, {"processes": 2}]
STOPS = [(), (SIGTERM,) * 3, (SIGKILL,) * 3]
RECORDINGS = [
    "spot_btcusdt_ethusdt_2024-08-08T2354.aggtrade.jsonl.gz",
    "spot_ltcusdt_2025-06-22T0500.aggtrade.jsonl.gz",
]
CLOCKS = [(400 * 86_400, 20), (-15 * 365 * 86_400, 1), (-3600, 0.2)]  # how far off in s, how fast


def plans():
    """Every chunk size with every layout and way to stop, without and with stalls; each seed changes who gets which log."""
    for seed in SEEDS:
        rng = random.Random(seed)
        for number, (chunk, layout, stops) in enumerate(product(CHUNKS, LAYOUTS, STOPS)):
            make = (realistic, adversarial)[(number + seed) % 2]
            stall_s = rng.uniform(0.05, 0.3) * min(chunk, 200) ** 0.5 / 2
            yield make, Plan(chunk=chunk, stops=stops, seed=seed, stall_s=round(stall_s, 2), **layout)
            if not stops:
                yield (adversarial, realistic)[(number + seed) % 2], Plan(chunk=chunk, seed=seed, **layout)
        yield adversarial, Plan(chunk=100, seed=seed, workers=2, processes=2, stops=(SIGKILL, SIGTERM), stall_s=0.2)


@pytest.fixture(scope="module", autouse=True)
def total():
    """Prints what all runs compared."""
    compared = []
    yield compared
    seconds, revisions = sum(seconds for seconds, _ in compared), sum(revisions for _, revisions in compared)
    print(f"\n{len(compared)} runs compared {seconds} seconds and {revisions} records of revision > 0, all equal")


@pytest.mark.parametrize(("make", "plan"), [*plans()], ids=lambda x: x.__name__ if callable(x) else str(x))
def test_the_whole_matrix(bench, total, make, plan):
    total.append(compare(bench, make(plan.seed, seconds=80), plan))


@pytest.mark.parametrize(("offset_s", "rate"), CLOCKS)
def test_wall_clocks(bench, total, tmp_path, offset_s, rate):
    for log in (adversarial(1), realistic(1)):
        plan = Plan(chunk=100, stall_s=0.1, environment=wall_clock(tmp_path, offset_s, rate))
        total.append(compare(bench, log, plan))


@pytest.mark.parametrize("name", RECORDINGS)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_recordings(bench, total, recordings, name, layout):
    log = recorded(recordings / name)
    assert digest(log.final) == digest(recorded(recordings / name, late=0).final)
    total.append(compare(bench, log, Plan(chunk=10_000, **layout)))
    total.append(compare(bench, log, Plan(chunk=1000, stops=(SIGKILL, SIGTERM, SIGKILL), stall_s=0.3, **layout)))
