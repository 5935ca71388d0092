"""The tutorial of docs/backtests.md, on a recording: its strategy, its commands, their output to the letter."""

import re
import shlex
import subprocess
import sys
from itertools import pairwise

import pytest
from doc_file import DOCS, ROOT, blocks, code_spans, tables

from flows.backtest.metrics import DEFINITIONS
from flows.backtest.params import as_text, parameters
from flows.backtest.result import KEYS
from flows.backtest.strategies import BUILT_IN

FILE = DOCS / "backtests.md"
RECORDING = "spot_btcusdt_ethusdt_2024-08-08T2354.aggtrade.jsonl.gz"


def tracker(directory, kafka, *words):
    done = subprocess.run(
        [sys.executable, "-m", "tracker", *words], cwd=directory, capture_output=True, text=True, check=False, timeout=90,
        env={"PATH": "/usr/bin:/bin", "BROKERS": kafka, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines())


def test_the_tutorial(kafka, tmp_path, recordings):
    tutorial = blocks(FILE)
    (strategy,) = [block.text for block in tutorial if block.language == "python"]
    (tmp_path / "dip.py").write_text(strategy)
    tracker(tmp_path, kafka, "import", str(recordings / RECORDING), "--topic", "trades")
    commands = [
        (line, after.text if after.language == "text" else "")
        for block, after in pairwise(tutorial)
        for line in block.text.splitlines()
        if block.language == "sh" and line.startswith(".venv/bin/tracker backtest")
    ]
    assert len(commands) == 4
    for line, expected in commands:
        shown = tracker(tmp_path, kafka, *shlex.split(line)[1:])
        pattern = ".*".join(map(re.escape, expected.split("…")))
        assert re.fullmatch(pattern, shown) or not expected, shown
    assert (tmp_path / "dip.html").stat().st_size > 10_000


def test_what_the_doc_lists_is_what_there_is():
    listed = {name for row in tables(FILE)["Results"] for name in code_spans(row[0]) if name in KEYS}
    assert listed == set(KEYS)
    meant = {code_spans(row[0])[0]: row[1] for row in tables(FILE)["Results"]}
    for name, text in DEFINITIONS.items():
        assert re.sub(r"\W", "", text)[:30].lower() in re.sub(r"\W", "", meant[name]).lower(), name
    for row in tables(FILE)["Strategies"]:
        (name,) = code_spans(row[0])
        known = parameters(BUILT_IN[name])
        assert code_spans(row[2]) == [f"{param}={as_text(one.default)}" for param, one in known.items()]


@pytest.mark.parametrize("option", ["--check", "--sweep", "--equity", "--symbols", "--allow-short", "--allow-debt"])
def test_options_of_the_doc_are_there(option):
    assert f"`{option}" in FILE.read_text() or f" {option} " in FILE.read_text()
    assert f'"{option}"' in (ROOT / "tracker" / "backtest.py").read_text() or option[2:] in ("symbols", "check")
