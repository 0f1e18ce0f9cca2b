# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A directory is complete or absent, whatever happens while it is filled."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from modeling_visreg.checkpoint import atomic_directory, remove_leftovers


def fill(directory, text="new"):
    (directory / "inner").mkdir()
    (directory / "inner" / "weights").write_text(text)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_directory_appears_complete(tmp_path):
    with atomic_directory(tmp_path / "deep" / "target") as staging:
        fill(staging)
        assert not (tmp_path / "deep" / "target").exists()
    assert (tmp_path / "deep" / "target" / "inner" / "weights").read_text() == "new"
    assert names(tmp_path / "deep") == ["target"]


def test_an_error_leaves_what_was_there(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    (target / "weights").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_directory(target, overwrite=True) as staging:
        fill(staging)
        raise KeyboardInterrupt
    assert names(tmp_path) == ["target"] and (target / "weights").read_text() == "old"


def test_a_directory_is_replaced_only_if_asked(tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    with atomic_directory(target) as staging:  # empty: nothing is lost
        fill(staging, "first")
    with pytest.raises(ValueError, match="is not empty"), atomic_directory(target):
        pytest.fail("the block must not run")
    with atomic_directory(target, overwrite=True) as staging:
        (staging / "other").touch()
    assert names(target) == ["other"] and names(tmp_path) == ["target"]
    with pytest.raises(ValueError, match="is a file"), atomic_directory(target / "other", overwrite=True):
        pytest.fail("the block must not run")


FILL = (
    "import sys, time; from modeling_visreg.checkpoint import atomic_directory\n"
    "with atomic_directory(sys.argv[1], overwrite=True) as staging:\n"
    "    (staging / 'half').touch(); print(staging, flush=True); time.sleep(600)"
)


def test_what_a_killed_process_left_goes_with_the_next_and_what_a_living_one_fills_stays(tmp_path):
    target = tmp_path / "kconv"
    processes = [
        subprocess.Popen([sys.executable, "-c", FILL, str(target)], stdout=subprocess.PIPE, text=True) for _ in "ab"
    ]
    stagings = [Path(process.stdout.readline().strip()) for process in processes]
    processes[0].send_signal(signal.SIGTERM)
    processes[0].wait(30)
    assert all(staging.is_dir() for staging in stagings)
    (tmp_path / ".kconv.mine.new").mkdir()  # not a name that is given here
    with atomic_directory(target) as staging:
        fill(staging)
    assert not stagings[0].exists() and stagings[1].is_dir()
    processes[1].kill()
    processes[1].wait(30)
    with atomic_directory(target, overwrite=True) as staging:
        fill(staging)
    assert names(tmp_path) == [".kconv.mine.new", "kconv"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    """The directory that was there has its place again before another one takes it."""
    target, aside = tmp_path / "target", tmp_path / ".target.0123abcd.old"
    aside.mkdir()
    (aside / "weights").write_text("old")
    with pytest.raises(ValueError, match="is not empty"), atomic_directory(target):
        pytest.fail("the block must not run")
    remove_leftovers(target)
    assert names(tmp_path) == ["target"] and (target / "weights").read_text() == "old"


def test_a_durable_directory_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    target, flushed, real_fsync = tmp_path / "target", [], os.fsync

    def fsync(handle):
        flushed.append((os.readlink(f"/proc/self/fd/{handle}"), target.exists()))
        real_fsync(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with atomic_directory(target, durable=True) as staging:
        fill(staging)
    inside = [staging, staging / "inner", staging / "inner" / "weights"]
    assert sorted(flushed) == sorted([*((str(path), False) for path in inside), (str(tmp_path), True)])
