"""The store of a flow's snapshots is made once, whole or not at all; what a killed flow left half-done is forgotten."""

import os
import pickle
import sqlite3
import subprocess
import sys

import pytest
from bytewax.recovery import init_db_dir

from flows.recovery import forget_uncommitted, make_recovery

# Counts its items by key: those of the environment, in which "EOF" ends a run and "ABORT" breaks it off.
COUNTING = """
import os
import bytewax.operators as op
from bytewax.connectors.stdio import StdOutSink
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource
from flows.recovery import forget_uncommitted_of_this_run

ENDS = {"EOF": TestingSource.EOF(), "ABORT": TestingSource.ABORT()}

def flow():
    forget_uncommitted_of_this_run()
    flow = Dataflow("counting")
    items = op.input("in", flow, TestingSource([ENDS.get(key, (key, 1)) for key in os.environ["ITEMS"].split()]))
    counts = op.stateful_map("count", items, lambda count, one: ((count or 0) + one,) * 2)
    op.output("out", op.map("text", counts, lambda item: f"{item[0]}{item[1]}"), StdOutSink())
    return flow
"""


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


@pytest.mark.parametrize("told_by", ["argument", "environment"])
def test_what_a_killed_flow_has_left_of_an_epoch_is_forgotten(tmp_path, told_by):
    """It stands in the store as if a process were killed after its snapshot of "b" and before the epoch was done."""
    (tmp_path / "counting.py").write_text(COUNTING)
    recovery = tmp_path / "recovery"
    make_recovery(recovery)
    command = [sys.executable, "-m", "bytewax.run", "counting", "-s", "0", "-b", "0"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    if told_by == "argument":
        command += ["-r", str(recovery)]
    else:
        environment["BYTEWAX_RECOVERY_DIRECTORY"] = str(recovery)

    def run(items):
        done = subprocess.run(command, env={**environment, "ITEMS": items}, check=True, capture_output=True, text=True)
        return done.stdout.split()

    assert run("a b EOF") == ["a1", "b1"]
    with sqlite3.connect(recovery / "part-0.sqlite3") as database:
        (epoch,) = database.execute("SELECT max(worker_frontier) FROM fronts").fetchone()
        (step,) = database.execute("SELECT DISTINCT step_id FROM snaps WHERE state_key = 'b'").fetchone()
        half_done = step, "b", epoch, pickle.dumps(100)
        database.execute(
            "INSERT INTO snaps (step_id, state_key, snap_epoch, ser_change) VALUES (?, ?, ?, ?)", half_done
        )
    assert run("a b EOF a a a ABORT") == ["a2", "a3", "a4"]
    assert run("a b EOF a a a b")[-1] == "b2"


def put(file, *rows):
    with sqlite3.connect(file) as database:
        for table, columns, values in rows:
            database.execute(f"INSERT INTO {table} ({columns}) VALUES ({', '.join('?' * len(values))})", values)
    database.close()


EX, FRONT = "ex_num, worker_count, resume_epoch", "ex_num, worker_index, worker_frontier"
SNAP, COMMIT = "step_id, state_key, snap_epoch", "part_index, commit_epoch"


@pytest.fixture
def two_parts(tmp_path):
    """A store of two parts: the last execution, its second, has reached epoch 12; each part knows one of the two."""
    init_db_dir(tmp_path, 2)
    files = [tmp_path / "part-0.sqlite3", tmp_path / "part-1.sqlite3"]
    snaps = [("snaps", SNAP, ("f.s", "k", epoch)) for epoch in (5, 11, 12)]
    put(files[0], ("exs", EX, (0, 1, 1)), ("fronts", FRONT, (0, 0, 5)), ("fronts", FRONT, (1, 1, 12)), *snaps)
    put(files[1], ("exs", EX, (1, 2, 5)), ("fronts", FRONT, (1, 0, 13)), *snaps)
    return files


def epochs(file):
    with sqlite3.connect(file) as database:
        found = [epoch for (epoch,) in database.execute("SELECT snap_epoch FROM snaps ORDER BY 1")]
    database.close()
    return found


def test_all_parts_say_together_what_was_completed(tmp_path, two_parts):
    assert forget_uncommitted(tmp_path) == 2
    assert [epochs(file) for file in two_parts] == [[5, 11], [5, 11]]


def test_what_a_first_run_left_before_it_was_noted_is_forgotten(tmp_path):
    """Its workers write to different parts, and one may be killed before it has noted the execution in its own."""
    init_db_dir(tmp_path, 2)
    file = tmp_path / "part-1.sqlite3"
    put(file, ("snaps", SNAP, ("f.s", "k", 1)))
    assert forget_uncommitted(tmp_path) == 1
    assert epochs(file) == []


def test_of_some_of_the_parts_nothing_is_deleted(tmp_path, two_parts):
    """The first alone believes that epoch 5 is where the next run begins."""
    two_parts[1].unlink()
    assert forget_uncommitted(tmp_path) == 0
    assert epochs(two_parts[0]) == [5, 11, 12]


def test_of_backups_of_different_times_nothing_is_deleted(tmp_path, two_parts):
    """Bytewax refuses them (InconsistentPartitionsError), and they are good as soon as the newer backup is there."""
    put(two_parts[0], ("commits", COMMIT, (0, 13)))
    assert forget_uncommitted(tmp_path) == 0
    assert [epochs(file) for file in two_parts] == [[5, 11, 12]] * 2
