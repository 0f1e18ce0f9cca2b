# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The test transform: sizes that fit the patch, and the image processor of the checkpoint."""

import pytest
import torch
import transformers
from PIL import Image

from modeling_visreg.decoding_visreg import LONGEST, without_ends
from visreg_training.backbones import open_backbone
from visreg_training.data import open_stream
from visreg_training.data.decode import open_image
from visreg_training.evaluation.preprocessing import EvaluationTransform, check_room, transform_for


def test_a_size_that_the_patch_does_not_divide_is_refused_with_those_that_fit(checkpoint):
    with pytest.raises(ValueError, match="16 or 20"):
        transform_for(open_backbone(checkpoint), 18)
    with pytest.raises(ValueError, match="do not divide 16 x 30; 16 28 or 16 32 would do"):
        transform_for(open_backbone(checkpoint), (16, 30))


def test_the_transform_is_that_of_the_image_processor(checkpoint):
    source = open_stream("digits", split="test")
    transform = transform_for(open_backbone(checkpoint))
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint)
    images = [image for image, _label, _name in source.examples(limit=8)]
    ours = transform.normalize(torch.stack([transform(image) for image in images]))
    theirs = processor(images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)


def test_a_strip_is_cropped_before_it_is_enlarged(checkpoint, tmp_path):
    """A PNG of 661 bytes: enlarged as it is, it would take 200 GB for a crop of 224 x 224."""
    pixels = Image.new("L", (200_000, 1))
    pixels.paste(255, (99_990, 0, 100_010, 1))
    pixels.save(tmp_path / "strip.png", optimize=True)
    assert (tmp_path / "strip.png").stat().st_size < 1000
    transform = EvaluationTransform((224, 224), (0.5,) * 3, (0.5,) * 3)
    crop = transform(open_image(None, str(tmp_path / "strip.png")).load())
    assert crop.shape == (3, 224, 224) and crop.min() == 255


def test_only_the_ends_of_strips_are_cut_off():
    image = Image.effect_noise((160, 10), 80).convert("RGB")
    assert without_ends(image, LONGEST) is image
    wider = Image.new("RGB", (200, 10))
    wider.paste(image, (20, 0))
    assert without_ends(wider, LONGEST).tobytes() == image.tobytes()


def test_a_batch_beyond_the_memory_is_refused_with_the_one_that_fits(checkpoint, monkeypatch):
    backbone = open_backbone(checkpoint)  # of patches of 4 pixels
    monkeypatch.setattr("visreg_training.evaluation.preprocessing.host_memory", lambda: 10 * 15 * 64**2)
    small = transform_for(backbone, 64)
    check_room(backbone, small, 256, 10)
    check_room(backbone, small, 10, None)
    with pytest.raises(ValueError, match=r"11 images of 64 x 64 .*; --batch_size 10 fits"):
        check_room(backbone, small, 11, 100)
    with pytest.raises(ValueError, match="; --image_size 200 with --batch_size 1 fits"):
        check_room(backbone, transform_for(backbone, 204), 1, 1)
    assert small.ahead == 512 and transform_for(backbone, 4096).ahead == 21
