# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Segmentation: a linear head on patch tokens finds what color tells, and counts pixels rightly."""

import dataclasses
import io
import shutil

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, Features, Image
from PIL import Image as PILImage
from sklearn.metrics import jaccard_score

from visreg_training.backbones import open_backbone
from visreg_training.commands import evaluate
from visreg_training.data import open_stream
from visreg_training.errors import RunStopped, UserError
from visreg_training.evaluation import run
from visreg_training.evaluation.preprocessing import transform_for
from visreg_training.evaluation.protocols import preset_options, segment
from visreg_training.evaluation.reports.results import read_result
from visreg_training.evaluation.splits import open_sources
from visreg_training.seeding import seed_of


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
    assert counts[0].shape == (7, 3, 2) and (counts[0] == counts[1]).all() and (counts[0] == counts[2]).all()
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
    with pytest.raises((RunStopped, UserError), match=r"mask \d (cannot be read: not_image|has 3 channels)") as caught:
        evaluate.main(argv)
    assert "\n" not in str(caught.value)


def test_an_image_that_cannot_be_read_is_named(checkpoint, scenes, tmp_path):
    images, masks = scenes
    broken = shutil.copytree(images, tmp_path / "images")
    (broken / "training" / "003.jpg").write_bytes((broken / "training" / "003.jpg").read_bytes()[:300])
    argv = ["segment", "--model", checkpoint, "--dataset", str(broken), "--mask_folder", masks]
    with pytest.raises(RunStopped, match=r"image .*003.jpg cannot be read") as caught:
        evaluate.main([*argv, "--test_split", "validation"])
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> tuple[str, str]:
    """As ADE20K is laid out: a folder of images and one of masks of the same names; 0 of a mask is no class."""
    random, root = np.random.default_rng(1), tmp_path_factory.mktemp("scenes")
    for split, count in (("training", 20), ("validation", 6)):
        for kind in ("images", "annotations"):
            (root / kind / split).mkdir(parents=True)
        for number in range(count):
            mask = np.repeat(random.permutation([0, 1, 2]), 8)[None].repeat(20, 0).astype(np.uint8)
            pixels = np.clip(mask[..., None] * 100 + random.integers(0, 40, (20, 24, 3)), 0, 255).astype(np.uint8)
            PILImage.fromarray(pixels).save(root / "images" / split / f"{number:03d}.jpg", quality=95)
            PILImage.fromarray(mask).save(root / "annotations" / split / f"{number:03d}.png")
    return str(root / "images"), str(root / "annotations")


def test_a_folder_of_images_and_one_of_masks(checkpoint, scenes, tmp_path):
    images, masks = scenes
    arguments = ["segment", "--model", checkpoint, "--dataset", images, "--mask_folder", masks]
    arguments += ["--train_split", "training", "--test_split", "validation", "--reduce_labels", "yes"]
    evaluate.main([*arguments, "--epochs", "3", "--output", str(tmp_path / "out.json")])
    result = read_result(tmp_path / "out.json")
    assert result["metrics"] == {"num_classes": 2, "classes_seen": 2} and result["notes"] == []
    other = tmp_path / "annotations"
    shutil.copytree(masks, other)
    (other / "validation" / "003.png").rename(other / "validation" / "x.png")
    with pytest.raises(UserError, match="6 and 6 files, first differing: 003"):
        evaluate.main([*arguments, "--mask_folder", str(other)])


def test_validation_is_tested_on_where_there_is_no_test_split(scenes):
    images, masks = scenes
    sources = open_sources(images, mask_folder=masks)
    assert (sources.test.split, sources.masks[1].split) == ("validation", "validation")
    assert (sources.test.num_examples, sources.masks[1].num_examples) == (6, 6)


def test_images_in_train_and_test_are_said(checkpoint, scenes, tmp_path):
    images, masks = (shutil.copytree(folder, tmp_path / str(number)) for number, folder in enumerate(scenes))
    shutil.copy(images / "training" / "005.jpg", images / "validation" / "002.jpg")
    options = segment.SegmentOptions(epochs=1, mask_folder=str(masks))
    splits = {"train_split": "training", "test_split": "validation"}
    result = run.evaluate(
        open_backbone(checkpoint), open_sources(str(images), mask_folder=str(masks), **splits), options
    )
    assert result["notes"] == ["1 of 6 test images stand among the training images too"]


def test_a_model_that_gives_no_numbers_is_refused(checkpoint, pictures):
    model = open_backbone(checkpoint)
    model.module.layernorm.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"the features of training image '\d+' are not finite"):
        run.evaluate(model, open_sources(pictures, mask_column="mask"), segment.SegmentOptions(epochs=1))


@pytest.mark.parametrize("preset", ["released", "released_ms"])
def test_the_released_protocol_is_that_of_a_loop_written_here(checkpoint, scenes, preset):
    """Crops are the package's (their boxes are drawn by image and epoch); all else is done again by hand."""
    options, _features = preset_options("segment", preset)
    assert (options.min_size, options.layers) == ((512, 1) if preset == "released" else (640, 4))
    options = dataclasses.replace(options, min_size=18, epochs=3, batch_size=6)
    images, masks = scenes
    sources = open_sources(images, "training", "validation", mask_folder=masks)
    backbone = open_backbone(checkpoint)
    result = run.evaluate(backbone, sources, options)
    size = 20  # 18 in whole patches of 4
    assert result["features"]["size"] == [size, size]

    def features(pixels: torch.Tensor) -> torch.Tensor:
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
        return tokens_of((pixels.float() / 255 - mean) / std)

    def tokens_of(normalized: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            blocks = [found.patches for found in backbone.tokens(normalized, options.layers)]
        side = normalized.shape[-1] // 4
        return torch.cat(blocks, 2).transpose(1, 2).unflatten(2, (side, side))

    train = segment.Masks(sources.train, sources.masks[0], transform_for(backbone, size), options)
    torch.manual_seed(seed_of("segment", 0))
    head = torch.nn.Sequential(torch.nn.BatchNorm2d(32 * options.layers), torch.nn.Conv2d(32 * options.layers, 2, 1))
    optimizer = torch.optim.AdamW(head.parameters(), 2e-3, weight_decay=1e-4)
    step, values = 0, []
    for epoch in range(3):
        for rows in torch.randperm(20).tensor_split(4):
            for group in optimizer.param_groups:
                group["lr"] = 2e-3 * (1 - step / 12) ** 0.9
            pairs = [train.random_crop(row, epoch) for row in rows.tolist()]
            logits = head(features(torch.stack([pixels for pixels, _mask in pairs])))
            logits = torch.nn.functional.interpolate(logits, size=(size, size), mode="bilinear")
            targets = torch.stack([mask for _pixels, mask in pairs])
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(logits, targets, ignore_index=255).backward()
            optimizer.step()
            step += 1
        values.append(released_iou(sources, backbone, head.eval(), tokens_of, options, size))
        head.train()
    assert [entry["value"] for entry in result["selection"]["candidates"]] == pytest.approx(values, abs=2e-3)
    assert result["value"] == pytest.approx(max(values), abs=2e-3) and result["selection"]["on"] == "test"
    assert result["settings"]["optimizer"] == "AdamW, poly"


def released_iou(sources, backbone, head, tokens_of, options, size: int) -> float:
    """Mean IoU at the crop's size, over the classes of the truth, labels less 1, by scikit-learn."""
    scores, truths = [], []
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    for number in range(6):
        with PILImage.open(sources.test.example(number).path) as image:
            pixels = np.array(image.convert("RGB").resize((size, size), PILImage.Resampling.BICUBIC))
        normalized = ((torch.from_numpy(pixels).permute(2, 0, 1).float() / 255 - mean) / std)[None]
        found = []
        for scale in options.scales:
            for flip in (False, True) if options.flips else (False,):
                side = round(size * scale / 4) * 4
                scaled = torch.nn.functional.interpolate(normalized, size=(side, side), mode="bicubic", antialias=True)
                with torch.no_grad():
                    logits = head(tokens_of(scaled.flip(-1) if flip else scaled))
                logits = logits.flip(-1) if flip else logits
                found.append(torch.nn.functional.interpolate(logits, size=(size, size), mode="bilinear").softmax(1))
        scores.append(torch.stack(found).mean(0).argmax(1).flatten())
        with PILImage.open(sources.masks[1].example(number).path) as mask:
            values = torch.from_numpy(np.array(mask).astype(np.int64))
        square = torch.nn.functional.interpolate(values[None, None].float(), size=(size, size)).long().flatten()
        truths.append(torch.where(square == 0, 255, square - 1))
    score, truth = torch.cat(scores), torch.cat(truths)
    known = truth != 255
    return jaccard_score(truth[known], score[known], average="macro", labels=truth[known].unique())


def test_classes_of_the_truth_or_of_truth_and_prediction():
    counts = np.array([[5, 0, 0], [10, 4, 0], [6, 0, 0]])  # the second class is only predicted
    assert segment.mean_iou(counts, "truth") == 0.5 and segment.mean_iou(counts, "all") == 0.25
