"""Another wall clock for a whole process, its native code included."""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest


def wall_clock(says):
    """Environment of a process whose wall clock `says` something (libfaketime's words); skips where there is none."""
    found = find_spec("libfaketime")
    libraries = [*Path(found.origin).parent.glob("vendor/libfaketime/src/libfaketime.so.1")] if found else []
    if not libraries:
        pytest.skip("libfaketime is not installed (it has a wheel for Linux x86_64 only)")
    return {
        "LD_PRELOAD": os.fspath(libraries[0]), "FAKETIME": says, "DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0",
    }  # fmt: skip
