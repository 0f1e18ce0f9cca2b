# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A directory is complete or absent, whatever happens while it is filled."""

import os

import pytest

from modeling_visreg.checkpoint import atomic_directory


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
