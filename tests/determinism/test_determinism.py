"""The same log gives the same bytes, however it is cut, read, stopped and resumed, by how many workers and processes.

`DETERMINISM=long` (`make test-determinism`) runs the whole matrix for each seed of `DETERMINISM_SEEDS` (1,2,3).
"""

import os
import random
from itertools import product
from signal import SIGKILL, SIGTERM

import pytest
from adversarial_log import adversarial
from raw_logs import realistic, recorded
from varied_runs import Plan, check

LONG = os.environ.get("DETERMINISM") == "long"
SEEDS = [int(seed) for seed in os.environ.get("DETERMINISM_SEEDS", "1,2,3").split(",")]
SHORT = [
    (realistic, Plan(chunk=1)),
    (adversarial, Plan(chunk=7, workers=2)),
    (adversarial, Plan(chunk=1000, processes=2, stall_s=0.1)),
    (realistic, Plan(chunk=10_000, workers=2, stops=(SIGKILL, SIGTERM), stall_s=0.3)),
    (adversarial, Plan(chunk=7, processes=2, stops=(SIGTERM, SIGKILL), stall_s=0.05)),
]


@pytest.mark.parametrize(("make", "plan"), SHORT, ids=lambda x: x.__name__ if callable(x) else str(x))
def test_short_matrix(bench, make, plan):
    compare(bench, make(1), plan)


def compare(bench, log, plan):
    seconds, revisions, sha256 = check(log, bench.run(log, plan), once=SIGKILL not in plan.stops)
    assert revisions > 0
    print(f"{log.name} {plan}: {seconds} seconds, {revisions} revisions, sha256 {sha256}")
