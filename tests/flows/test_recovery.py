"""The store of a flow's snapshots is made once, whole or not at all."""

import subprocess
import sys

from flows.recovery import make_recovery


def test_it_is_made_once(tmp_path):
    directory = tmp_path / "volume" / "flow"
    command = [sys.executable, "-m", "flows.recovery", str(directory)]
    subprocess.run(command, check=True)
    made = {file: file.stat().st_mtime_ns for file in directory.iterdir()}
    assert made
    subprocess.run(command, check=True)
    assert {file: file.stat().st_mtime_ns for file in directory.iterdir()} == made


def test_a_killed_start_leaves_nothing_that_counts(tmp_path):
    draft = tmp_path / "flow.draft"
    draft.mkdir()
    (draft / "part-0.sqlite3").write_bytes(b"half")
    make_recovery(tmp_path / "flow")
    assert (tmp_path / "flow" / "part-0.sqlite3").read_bytes().startswith(b"SQLite format 3")
    assert not draft.exists()
