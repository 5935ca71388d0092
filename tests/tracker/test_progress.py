"""What the progress line says."""

import pytest

from tracker.progress import duration, progress_text


def test_with_an_end_in_sight():
    text = progress_text(1500, 6000, 3.0, "records", "at 2024")
    assert text == "[######------------------]  25 %  1,500 of 6,000 records, 500/s, 9.0 s left, at 2024"


def test_without_and_past_it():
    assert progress_text(1500, 0, 0.0, "bytes", "") == "1,500 bytes, 0/s"
    assert progress_text(7, 5, 1.0, "records", "").startswith(f"[{'#' * 24}] 100 %  7 of 5 records, 7/s, 0.0 s left")


@pytest.mark.parametrize(("seconds", "text"), [(0.04, "0.0 s"), (61.4, "1 min 1 s"), (3660, "1 h 1 min")])
def test_durations(seconds, text):
    assert duration(seconds) == text
