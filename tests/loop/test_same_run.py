# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A run goes on with the images it began with, wherever they lie now; a change is named; the start may be gone."""

import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from helpers import forked
from visreg_training.errors import UserError
from visreg_training.pretrain import pretrain
from visreg_training.run_folder import RunFolder, read_json


pytestmark = pytest.mark.cpu


def photo(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Options of a run on 16 photos that began with the weights of another, which is gone; its folder is `run`."""
    folder = tmp_path_factory.mktemp("same")
    (folder / "photos").mkdir()
    for number in range(16):
        photo(folder / "photos" / f"{number:02}.png", number)
    changes = {"fraction": None, "epochs": None, "max_steps": 2, "save_every": 1, "global_batch_size": 4}
    recipe = forked.write_recipe(folder / "recipe.yaml", dataset=str(folder / "photos"), **changes)
    before = os.umask(0o027)
    try:
        pretrain(config=recipe, output_dir=str(folder / "first"))
        options = {"config": recipe, "output_dir": str(folder / "run"), "initialize_from": str(folder / "first")}
        pretrain(**options)
    finally:
        os.umask(before)
    shutil.rmtree(folder / "first")
    return options | {"resume": "auto"}, folder


def test_another_spelling_and_a_copy_elsewhere_go_on_without_the_start(run, monkeypatch, capsys):
    options, folder = run
    monkeypatch.chdir(folder)
    shutil.copytree("photos", "other/disk")
    with ThreadPoolExecutor(1) as pool:  # as in a notebook's widget: signals are the main thread's
        for dataset in ("photos/", "other/disk"):
            assert pool.submit(pretrain, **options, dataset=dataset).result()["steps"] == 2
    assert f"changed on resume: dataset: {folder}/photos -> photos/" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda photos: photo(photos / "x.png", 99), "17 images now, 16 before: x.png is new;"),
        (lambda photos: (photos / "03.png").unlink(), "15 images now, 16 before: 03.png is gone;"),
        (lambda photos: (photos / "03.png").rename(photos / "y.png"), "images: y.png is new, 03.png is gone;"),
        (lambda photos: (photos / "03.png").write_bytes((photos / "04.png").read_bytes() + b"1"), "03.png is not the"),
    ],
)
def test_what_changed_in_a_folder_is_named(run, tmp_path, change, words):
    options, folder = run
    photos = shutil.copytree(folder / "photos", tmp_path / "photos")
    change(photos)
    with pytest.raises(UserError, match="the run cannot be continued with other images: ") as caught:
        pretrain(**options, dataset=str(photos))
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_images_are_listed_in_the_run(run):
    listed = read_json(RunFolder(run[1] / "run").images)
    assert listed["images"] == 16 and len(listed["files"]) == 16 and listed["files"]["00.png"] > 0


def test_files_of_a_run_follow_the_umask(run):
    found = (run[1] / "run" / "checkpoints" / "step-00000002").iterdir()  # nothing rewrites them
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in found}
    assert {"model.safetensors", "optimizer.pt", "state.json", "config.json"} <= modes.keys()
    assert set(modes.values()) == {0o640}
