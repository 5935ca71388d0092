"""Where a flow keeps its snapshots, made before its first start: `python -m flows.recovery DIR`.

Bytewax' own `python -m bytewax.recovery` wants an empty directory and leaves a half-made one when it is killed.
"""

import argparse
import logging
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

log = logging.getLogger(__name__)

PARTITIONS = 1  # of the snapshots; the number is fixed for good
LOCK_WAIT_S = 30
FIRST_EPOCH = 1  # of a store without an execution


def make_recovery(directory: Path) -> None:
    """Make the recovery store in `directory`; one that is there stays as it is."""
    if directory.is_dir():
        return
    from bytewax.recovery import init_db_dir  # noqa: PLC0415 - needed once in the life of a data directory

    draft = directory.with_name(f"{directory.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    init_db_dir(draft, PARTITIONS)
    draft.rename(directory)


def forget_uncommitted(directory: Path) -> int:
    """Delete the snapshots of epochs that no execution has completed; returns how many there were.

    A killed process leaves snapshots of its last, half-done epochs. Bytewax runs these epochs anew, and overwrites a
    snapshot only where it takes the same one again: a key without records in that epoch keeps the dead one's state,
    ahead of what its source and its sinks have done, and what lies between is lost. No execution may be running.

    Nothing is deleted where the directory alone does not say which epochs those are: some of the store's parts are
    elsewhere, or they are backups of different times, which Bytewax refuses.
    """
    files = sorted(directory.glob("*.sqlite3"))
    parts: dict[int, int] = {}
    collected = 0
    executions: dict[int, tuple[int, int]] = {}
    reached: dict[tuple[int, int], int] = {}
    for file in files:
        with closing(sqlite3.connect(file, timeout=LOCK_WAIT_S)) as database:
            parts |= dict(database.execute("SELECT part_index, part_count FROM parts"))
            (oldest,) = database.execute("SELECT coalesce(max(commit_epoch), 0) FROM commits").fetchone()
            collected = max(collected, oldest)
            rows = database.execute("SELECT ex_num, worker_count, resume_epoch FROM exs")
            executions |= {number: (workers, epoch) for number, workers, epoch in rows}
            rows = database.execute("SELECT ex_num, worker_index, worker_frontier FROM fronts")
            reached |= {(number, worker): epoch for number, worker, epoch in rows}
    if any(parts.keys() != set(range(count)) for count in parts.values()):
        log.warning("%s has only some of its parts: snapshots of epochs that were not completed stay", directory)
        return 0
    # The rule of Bytewax' RecoveryPart.resume_from.
    last = max(executions, default=-1)
    workers, first = executions.get(last, (1, FIRST_EPOCH))
    progress = dict.fromkeys(range(workers), first)
    for (number, worker), epoch in reached.items():
        if number == last:
            progress[worker] = max(epoch, progress.get(worker, epoch))
    resume_epoch = min(progress.values())
    if collected > resume_epoch:
        return 0
    deleted = 0
    for file in files:
        with closing(sqlite3.connect(file, timeout=LOCK_WAIT_S)) as database, database:
            deleted += database.execute("DELETE FROM snaps WHERE snap_epoch >= ?", (resume_epoch,)).rowcount
    return deleted


def forget_uncommitted_of_this_run() -> None:
    """`forget_uncommitted` in the directory that `python -m bytewax.run` was given; elsewhere nothing.

    Each process of a cluster does so before it joins, and none runs before all have.
    """
    spec = sys.modules["__main__"].__spec__
    if spec is None or spec.name != "bytewax.run":
        return
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-r", "--recovery-directory", default=os.environ.get("BYTEWAX_RECOVERY_DIRECTORY"))
    directory = parser.parse_known_args()[0].recovery_directory
    if directory is not None and (deleted := forget_uncommitted(Path(directory))):
        log.info("forgot %d snapshots of epochs that were not completed", deleted)


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m flows.recovery", description=make_recovery.__doc__)
    parser.add_argument("directory", type=Path)
    make_recovery(parser.parse_args().directory)


if __name__ == "__main__":
    main()
