# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The contact sheet of `visreg preview`."""

import sys

import numpy as np
from PIL import Image

from visreg_training.commands import preview as command
from visreg_training.data import DeviceAugment, MultiCrop, open_stream, preview
from visreg_training.data.preview import facts


def test_preview_writes_a_sheet_and_says_what_is_there(five_shards, tmp_path):
    metadata = preview(
        open_stream(five_shards), MultiCrop(2, 3, 32, 16), DeviceAugment(), tmp_path / "sheet.png", count=4
    )
    sheet = Image.open(tmp_path / "sheet.png")
    assert sheet.size == (32 + 2 * 36 + 3 * 20, 4 * 36 - 4)
    assert (
        metadata["num_examples"] == 120
        and metadata["views"] == ["2 x 32", "3 x 16"]
        and metadata["images_per_second"] > 0
    )
    assert metadata["sizes"] == [(40, 30)] * 3
    assert np.asarray(sheet).std() > 10


def test_the_sample_goes_across_the_classes_and_the_facts_have_labels(tmp_path, capsys):
    """The first eight files were shown, all of one class, and a broken photo was found by the run."""
    for name, count in (("cat", 40), ("dog", 30), ("owl", 2)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (60 + number, 40), (3 * number, 90, 20)).save(
                tmp_path / "photos" / name / f"{number}.jpg"
            )
    (tmp_path / "photos" / "cat" / "broken.jpg").write_bytes(b"no image")
    source = open_stream(tmp_path / "photos")
    sample = (source, MultiCrop(1, 0, 16), DeviceAugment(), tmp_path / "a.png")
    metadata = preview(*sample, count=4)
    labels = [source.example(int(number)).label for number in metadata["shown"]]
    assert sorted(set(labels)) == [0, 1, 2] and len(labels) == 4
    assert preview(*sample, count=4)["shown"] == metadata["shown"] != preview(*sample, count=4, seed=1)["shown"]

    output = tmp_path / "new" / "folder" / "sheet.png"
    command.main(["--dataset", str(tmp_path / "photos"), "--output", str(output), "--count", "3", "--num_local", "0"])
    said = dict(
        line.split(None, 1) for line in capsys.readouterr().out.splitlines() if not line.startswith("data set")
    )
    assert output.is_file() and said["images"] == "73" and said["classes"] == "3: cat, dog, owl"
    assert said["unreadable"] == f"1 of 73 looked at: {tmp_path / 'photos' / 'cat' / 'broken.jpg'} (not_image)"
    assert said["pixels"].startswith("60 x 40 the smallest, ") and "images a second, by one worker" in said["rate"]


def test_views_that_are_too_large_to_look_at_are_drawn_smaller(five_shards, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["visreg_training.data.preview"], "MAX_PIXELS", 4 * 6 * 20**2)
    sample = (open_stream(five_shards), MultiCrop(2, 3, 16, 32), DeviceAugment(), tmp_path / "sheet.png")
    metadata = preview(*sample, count=4)
    assert Image.open(tmp_path / "sheet.png").size == (20 + 2 * 20 + 3 * 24, 4 * 24 - 4)
    assert metadata["drawn_at"] == 20 and ("sheet", f"{sample[-1]}, views drawn 20 px at most") in facts(metadata)
