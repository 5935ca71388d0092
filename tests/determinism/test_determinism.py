"""The same log gives the same bytes, however it is cut, read, stopped and resumed, by how many workers and processes."""

from signal import SIGKILL, SIGTERM

import pytest
from adversarial_log import adversarial
from clocks import wall_clock
from raw_logs import MIDNIGHT, digest, realistic, recorded
from varied_runs import Plan, compare

pytestmark = pytest.mark.timeout(300)
RECORDING = "spot_btcusdt_ethusdt_2024-08-08T2354.aggtrade.jsonl.gz"
PLANS = [
    (realistic, Plan(chunk=1)),
    (adversarial, Plan(chunk=7, workers=2)),
    (adversarial, Plan(chunk=1000, processes=2, stall_s=0.1)),
    (realistic, Plan(chunk=10_000, workers=2, stops=(SIGKILL, SIGTERM), stall_s=0.5)),
    (adversarial, Plan(chunk=7, processes=2, stops=(SIGTERM, SIGKILL), stall_s=0.1)),
    (adversarial, Plan(chunk=7, stops=(SIGTERM, SIGTERM), stall_s=0.1)),
]


@pytest.mark.parametrize(("make", "plan"), PLANS, ids=lambda x: x.__name__ if callable(x) else str(x))
def test_the_log_decides_every_byte(bench, make, plan):
    compare(bench, make(1), plan)


def test_whatever_the_wall_clock_says(bench, tmp_path):
    plan = Plan(chunk=1000, stall_s=0.1, environment=wall_clock(tmp_path, offset_s=400 * 86_400, rate=10))
    compare(bench, adversarial(1), plan)


def test_a_recording_gives_the_hash_of_the_decimal_reference(bench, recordings):
    log = recorded(recordings / RECORDING, before_ms=MIDNIGHT + 60_000)
    compare(bench, log, Plan(chunk=10_000))
    assert digest(log.final) == digest(recorded(recordings / RECORDING, late=0, before_ms=MIDNIGHT + 60_000).final)
