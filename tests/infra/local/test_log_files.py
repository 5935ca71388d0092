"""Log files stay within their limit while a part goes on writing."""

from pathlib import Path

from infra.local.log_files import CHECK_EVERY_S, LogFiles


def test_a_log_that_grows_is_cut(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, ["part"], limit_bytes=100)
    logs.path("part").parent.mkdir()
    with logs.path("part").open("ab", buffering=0) as part:
        part.write(b"old\n" * 30)
        logs.trim(now=0.0)
        part.write(b"new\n")
        assert logs.path("part").read_bytes() == b"new\n"
        assert logs.path("part").with_suffix(".log.1").read_bytes() == b"old\n" * 30
        part.write(b"old\n" * 30)
        logs.trim(now=CHECK_EVERY_S / 2)
        assert logs.path("part").stat().st_size > 100
        logs.trim(now=CHECK_EVERY_S)
        assert logs.path("part").stat().st_size == 0


def test_each_run_begins_a_file(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, ["part"])
    logs.rotate()
    logs.path("part").parent.mkdir()
    logs.path("part").write_text("one\ntwo\n")
    assert logs.end_of("part", lines=1).endswith("part.log:\n  two")
    logs.rotate()
    assert not logs.path("part").exists()
    assert logs.end_of("part") == ""
