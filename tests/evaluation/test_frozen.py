# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a run asks of its backbone at its end."""

import pytest
from PIL import Image

from modeling_visreg import VISRegViTModel
from visreg_training.backbones import wrap_backbone
from visreg_training.evaluation.frozen import frozen_accuracy


def shades(labels: list[int | None]) -> list[tuple]:
    """Dark (label 0) and light (label 1) images; those without a label are dark."""
    colors = {None: 10, 0: 10, 1: 240}
    return [
        (Image.new("RGB", (16, 16), (colors[label] + number % 5,) * 3), label, str(number))
        for number, label in enumerate(labels)
    ]


def test_classes_are_matched_and_images_without_label_left_out(checkpoint):
    backbone = wrap_backbone(VISRegViTModel.from_pretrained(checkpoint))
    train = shades([number % 2 for number in range(60)] + [None] * 3)
    test = shades([0, 1] * 10 + [None])
    found = frozen_accuracy(backbone, train, test)
    assert found.accuracy == {"knn": 1.0, "linear": 1.0}
    assert (found.how["train_images"], found.how["test_images"]) == (60, 20)
    assert frozen_accuracy(backbone, train, test, {0: 1, 1: 0}).accuracy == {"knn": 0.0, "linear": 0.0}
    with pytest.raises(ValueError, match="one class"):
        frozen_accuracy(backbone, shades([0] * 20), test)
    with pytest.raises(ValueError, match="test images have no labels"):
        frozen_accuracy(backbone, train, shades([None]))
    with pytest.raises(ValueError, match="several labels"):
        frozen_accuracy(backbone, train, [(image, [0, 1], name) for image, _label, name in test])
