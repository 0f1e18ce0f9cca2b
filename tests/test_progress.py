# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Progress where there is no terminal: lines with rate and time left."""

import pytest

from visreg_training import progress
from visreg_training.progress import Track, clock, tracked


def test_a_line_says_rate_and_time_left():
    track = Track(9000, "features of photos, train", shown=False)
    track.add(3000)
    assert track.line(60.0) == "features of photos, train: 3000 of 9000 images, 50 a second, 2:00 left"
    track.begin_at(6000)  # before a resume, which the rate does not count
    track.add(1500)
    assert track.line(60.0) == "features of photos, train: 7500 of 9000 images, 25 a second, 1:00 left"
    unknown = Track(None, "reading", "files", shown=False)
    unknown.add(30)
    assert unknown.line(10.0) == "reading: 30 files, 3 a second"
    assert clock(3723) == "1:02:03"


@pytest.mark.parametrize("shown", [True, False])
def test_lines_come_on_the_process_that_shows_them_only(monkeypatch, capsys, shown):
    monkeypatch.setattr(progress, "SECONDS", 0.0)
    assert list(tracked("abc", 3, "letters", "letters", shown=shown)) == ["a", "b", "c"]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == (3 if shown else 0) and all("of 3 letters" in line for line in said)


def test_what_takes_no_time_says_nothing(capsys):
    assert list(tracked(range(1000), 1000, "numbers")) == list(range(1000))
    assert capsys.readouterr().err == ""
