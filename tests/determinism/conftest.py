"""One set of stores and topics for all runs."""

import os

import pytest
from varied_runs import Bench

collect_ignore = [] if os.environ.get("DETERMINISM") == "long" else ["test_determinism_long.py"]


@pytest.fixture(scope="session")
def bench(kafka, valkey, tmp_path_factory):
    return Bench(kafka, valkey, tmp_path_factory.mktemp("determinism"))
