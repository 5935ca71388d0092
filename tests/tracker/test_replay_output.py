"""The file of `tracker replay --out` is there whole or not at all."""

from types import SimpleNamespace

import pytest

from tracker.replay import write


class Replayed:
    def __init__(self, error=None):
        self.error = error

    def batches(self):
        yield 0, b"one\n"
        if self.error:
            raise self.error

    def progress(self):
        return SimpleNamespace(records=1, expected=2, watermark_ms=0, seconds=1)


def test_a_whole_one_stands(tmp_path):
    write(Replayed(), tmp_path / "out.jsonl")
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]
    assert (tmp_path / "out.jsonl").read_bytes() == b"one\n"


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_broken_one_leaves_nothing_and_what_was_there(tmp_path, error):
    (tmp_path / "out.jsonl").write_bytes(b"before\n")
    with pytest.raises(type(error)):
        write(Replayed(error), tmp_path / "out.jsonl")
    assert [file.name for file in tmp_path.iterdir()] == ["out.jsonl"]
    assert (tmp_path / "out.jsonl").read_bytes() == b"before\n"
