# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Segmentation: a linear head on patch tokens finds what color tells, and counts pixels rightly."""

import io

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, Features, Image
from PIL import Image as PILImage

from visreg_training.backbones import open_backbone
from visreg_training.commands import evaluate
from visreg_training.data import open_stream
from visreg_training.errors import UserError
from visreg_training.evaluation import run
from visreg_training.evaluation.preprocessing import transform_for
from visreg_training.evaluation.protocols import segment
from visreg_training.evaluation.reports.results import read_result
from visreg_training.evaluation.splits import open_sources


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Pictures whose left or right half is bright; class 1 is bright, 0 dark, and some pixels count nowhere."""
    random = np.random.default_rng(0)

    def split(count: int) -> Dataset:
        images, masks = [], []
        for number in range(count):
            mask = np.zeros((24, 32), np.uint8)
            mask[:, :16] = number % 2
            mask[:, 16:] = 1 - number % 2
            pixels = np.clip(mask[..., None] * 200 + random.integers(0, 40, (24, 32, 3)), 0, 255).astype(np.uint8)
            mask[0] = 255
            images.append(PILImage.fromarray(pixels))
            masks.append(PILImage.fromarray(mask))
        return Dataset.from_dict(
            {"image": images, "mask": masks}, features=Features({"image": Image(), "mask": Image()})
        )

    folder = tmp_path_factory.mktemp("segment") / "data"
    DatasetDict({"train": split(24), "test": split(7)}).save_to_disk(folder)
    return str(folder)


def test_segment_command(checkpoint, pictures, tmp_path):
    arguments = ["--model", checkpoint, "--dataset", pictures, "--epochs", "15", "--learning_rate", "1e-2"]
    evaluate.main(["segment", *arguments, "--batch_size", "5", "--output", str(tmp_path)])
    (path,) = tmp_path.glob("*.json")
    result = read_result(path)
    assert result["metric"] == "mean_iou" and result["metrics"] == {"num_classes": 2, "classes_seen": 2}
    assert result["value"] > 0.8 and result["interval"][0] <= result["value"] <= result["interval"][1]


def test_the_head_is_tested_in_evaluation_mode_and_every_image_counts(checkpoint, pictures):

    model = open_backbone(checkpoint)
    pair = [open_stream(pictures, split="test", image_column=column) for column in ("image", "mask")]
    masks = segment.Masks(*pair, transform_for(model))
    settings = segment.SegmentOptions(epochs=1, batch_size=4)
    head = segment.train_head(model, masks, 2, settings)
    assert not head.training and not model.module.training
    counts = [segment.test_counts(model, head, masks, 2, size) for size in (1, 3, 100)]
    assert counts[0].shape == (7, 2, 2) and (counts[0] == counts[1]).all() and (counts[0] == counts[2]).all()
    model.module.train()
    with pytest.raises(RuntimeError, match="training mode"):
        model.patch_map(torch.zeros(1, 3, 16, 16))


def test_the_python_api_is_that_of_every_protocol(checkpoint, pictures):
    options = segment.SegmentOptions(epochs=1)
    result = run.evaluate(open_backbone(checkpoint), open_sources(pictures, mask_column=options.mask_column), options)
    assert result["protocol"] == "segment" and result["settings"]["epochs"] == 1
    with pytest.raises(ValueError, match="needs masks"):
        run.evaluate(open_backbone(checkpoint), open_sources("digits"), options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mask_column", "truth"], "mask_column: there is no column 'truth'; the columns are image .*, mask"),
        (["--epochs", "0"], "at least 1"),
        (["--num_classes", "1"], "num_classes must be"),
        (["--test_split", "train"], "different splits"),
        (["--validation_split", "val"], "takes none"),
    ],
)
def test_mistakes_are_named(checkpoint, pictures, options, words):
    with pytest.raises(UserError, match=words):
        evaluate.main(["segment", "--model", checkpoint, "--dataset", pictures, *options])


def test_a_mask_that_cannot_be_read_is_named(checkpoint, tmp_path):
    """Masks pass the bounds of images: formats, pixels, and whatever a decoder says, on one line."""
    picture, buffer = PILImage.new("RGB", (16, 16)), io.BytesIO()
    picture.save(buffer, "PNG")
    masks = [buffer.getvalue(), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
    rows = {"image": [{"bytes": buffer.getvalue(), "path": None}] * 2}
    rows["mask"] = [{"bytes": mask, "path": None} for mask in masks]
    features = Features({"image": Image(decode=False), "mask": Image(decode=False)})
    split = Dataset.from_dict(rows, features=features)
    DatasetDict({"train": split, "test": split}).save_to_disk(tmp_path / "data")
    argv = ["segment", "--model", checkpoint, "--dataset", str(tmp_path / "data"), "--num_classes", "2"]
    with pytest.raises(UserError, match=r"mask \d (cannot be read: not_image|has 3 channels)") as caught:
        evaluate.main(argv)
    assert "\n" not in str(caught.value)
