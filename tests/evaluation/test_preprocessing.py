# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The test transform: sizes that fit the patch, and the image processor of the checkpoint."""

import pytest
import torch
import transformers

from visreg_training.backbones import open_backbone
from visreg_training.data import open_stream
from visreg_training.evaluation.preprocessing import transform_for


def test_a_size_that_the_patch_does_not_divide_is_refused_with_those_that_fit(checkpoint):
    with pytest.raises(ValueError, match="16 or 20"):
        transform_for(open_backbone(checkpoint), 18)


def test_the_transform_is_that_of_the_image_processor(checkpoint):
    """Within a level of 8 bits: Pillow rounds after each of its two passes."""
    source = open_stream("digits", split="test")
    transform = transform_for(open_backbone(checkpoint))
    processor = transformers.AutoImageProcessor.from_pretrained(checkpoint)
    images = [image for image, _label, _name in source.examples(limit=8)]
    ours = transform.normalize(torch.stack([transform(image) for image in images]))
    theirs = processor(images, return_tensors="pt")["pixel_values"]
    assert (ours - theirs).abs().max() < 1.5 / 255 / min(transform.std)
