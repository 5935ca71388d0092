"""Where a flow keeps its snapshots, made before its first start: `python -m flows.recovery DIR`.

Bytewax' own `python -m bytewax.recovery` wants an empty directory and leaves a half-made one when it is killed.
"""

import argparse
import shutil
from pathlib import Path

PARTITIONS = 1  # of the snapshots; the number is fixed for good


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


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(prog="python -m flows.recovery", description=make_recovery.__doc__)
    parser.add_argument("directory", type=Path)
    make_recovery(parser.parse_args().directory)


if __name__ == "__main__":
    main()
