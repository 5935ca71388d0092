"""One set of stores and topics for all runs."""

import pytest
from varied_runs import Bench


@pytest.fixture(scope="session")
def bench(kafka, valkey, tmp_path_factory):
    return Bench(kafka, valkey, tmp_path_factory.mktemp("determinism"))
