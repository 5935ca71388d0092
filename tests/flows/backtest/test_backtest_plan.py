"""Results that were changed by hand, given to a check."""

import copy

import pytest

from flows.backtest import BacktestError
from flows.backtest.loading import load
from flows.backtest.plan import Plan
from flows.backtest.result import KEYS

RESULT = dict.fromkeys(KEYS, "1") | {
    "strategy": "buy_and_hold",
    "params": {},
    "manifest": {
        "topic": "t", "from": None, "to": None, "partitions": {"0": {"start": 0, "end": 5}},
        "settings": {"allowed_lateness_ms": 200, "revision_horizon_ms": 1_800_000},
        "backtest": {"fee_bps": "10", "slippage_bps": "0", "symbols": [], "allow_short": False, "allow_debt": False},
    },
}  # fmt: skip
PLACES = [
    ("strategy",), ("params",), ("manifest",), ("manifest", "topic"), ("manifest", "from"), ("manifest", "to"),
    ("manifest", "partitions", "0", "end"), ("manifest", "settings", "allowed_lateness_ms"), ("manifest", "backtest"),
]  # fmt: skip


@pytest.mark.parametrize("value", [[], 1.5, "x", True, -1])
@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_result_that_was_tampered_with_is_an_error_that_says_so(place, value):
    result = copy.deepcopy(RESULT)
    load(Plan.of_result(result).strategy)
    inner = result
    for name in place[:-1]:
        inner = inner[name]
    if isinstance(inner[place[-1]], str) and value == "x":
        pytest.skip("a text like another")
    if value == -1 and place[-1] in ("from", "to", "end"):
        pytest.skip("a number, which the log refuses")
    inner[place[-1]] = value
    with pytest.raises(BacktestError, match="can't be read"):
        Plan.of_result(result)
