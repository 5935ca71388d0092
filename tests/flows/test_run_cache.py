"""What is compiled once and kept for later starts is compiled anew where it would not be the same."""

import importlib
import sys

import pytest

FORMULA = """
from elsewhere import FACTOR
from flows.run_scan import native

@native
def product(number):
    return number * FACTOR
"""


@pytest.fixture
def product(tmp_path, monkeypatch):
    """The function's result and whether it was kept, as a start of a program with this factor finds it."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "formula.py").write_text(FORMULA)

    def start(factor):
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        (tmp_path / "elsewhere.py").write_text(f"FACTOR = {factor}\n")
        for name in ("elsewhere", "formula"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        function = importlib.import_module("formula").product
        return function(10), bool(function.stats.cache_hits)

    yield start
    for name in ("elsewhere", "formula"):
        sys.modules.pop(name, None)


def test_a_number_of_another_file_that_changes_is_compiled_in(product):
    assert product(2) == (20, False)
    assert product(2) == (20, True)
    assert product(3) == (30, False)
    assert product(2) == (20, True)
