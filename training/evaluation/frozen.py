# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""How good a backbone in memory is, as the end of a run asks: `frozen_accuracy`."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import NamedTuple

from ..backbones import Backbone
from ..run_folder import Json
from .features import Features, extract_features, subset
from .options import FeatureOptions
from .preprocessing import transform_for
from .protocols.knn import KnnOptions, knn_accuracy
from .protocols.linear import linear_accuracy
from .splits import make_task, renumbered


class Measured(NamedTuple):
    """`accuracy`: `knn` and `linear`, shares; `how`: what `visreg evaluate` would write about the same measurement."""

    accuracy: dict[str, float]
    how: Json


def frozen_accuracy(
    backbone: Backbone,
    train_examples: Iterable[tuple],
    test_examples: Iterable[tuple],
    label_map: dict[int, int] | None = None,
) -> Measured:
    """20-NN and linear accuracy on the test images, of the last block; images without a label are left out.

    Args:
        backbone: on its device; a model that is being trained goes on training.
        train_examples, test_examples: (PIL image, label or None, id).
        label_map: number in the training split of each class of the test split (`splits.label_map`), None if both
            number alike.

    Raises:
        ValueError: a split has no image with a label, images have several, all training images are of one class, or a
            feature is not finite.
    """

    options = FeatureOptions(layers=1)

    def read(examples: Iterable[tuple], split: str) -> Features:
        features = extract_features(backbone, examples, options)
        if features.labels.ndim > 1:
            raise ValueError(f"the {split} images have several labels each")
        known = (features.labels >= 0).nonzero().flatten()
        if len(known) == 0:
            raise ValueError(f"the {split} images have no labels")
        return subset(features, known)

    task = make_task(read(train_examples, "training"), renumbered(read(test_examples, "test"), label_map))
    arguments = (task.train.features, task.train.labels, task.test.features, task.test.labels)
    linear, knn = linear_accuracy(*arguments), KnnOptions()
    how = {
        "features": asdict(options) | {"transform": transform_for(backbone).description()},
        "settings": {"knn": {"k": knn.k[0], "temperature": knn.temperature[0]}, "linear": linear.settings},
        "train_images": len(task.train.labels),
        "test_images": len(task.test.labels),
        "notes": task.notes(),
    }
    return Measured({"knn": knn_accuracy(*arguments), "linear": linear.accuracy}, how)
