"""Another wall clock for a whole process, its native code included."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def wall_clock(directory, offset_s, rate):
    """Environment of a process whose wall clock is `offset_s` off and goes `rate` times as fast."""
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("another wall clock needs a C compiler on Linux")
    library = directory / "wall_clock.so"
    source = Path(__file__).with_name("wall_clock.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return {"LD_PRELOAD": os.fspath(library), "WALL_OFFSET_S": str(offset_s), "WALL_RATE": str(rate)}
