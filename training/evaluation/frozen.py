# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""How good a backbone in memory is, as the end of a run asks: `frozen_accuracy`."""

from collections.abc import Iterable
from typing import Any

from torch import nn

from .features import Features, extract_features
from .knn import knn_accuracy
from .linear import linear_accuracy
from .task import renumbered, subset


def frozen_accuracy(
    backbone: nn.Module,
    processor: Any,
    train_examples: Iterable[tuple],
    test_examples: Iterable[tuple],
    label_map: dict[int, int] | None = None,
) -> dict[str, float]:
    """20-NN and linear accuracy (`knn`, `linear`, shares) on the test images; images without a label are left out.

    Args:
        train_examples, test_examples: (PIL image, label or None, id).
        label_map: number in the training split of each class of the test split (`task.label_map`), None if both
            number alike.

    Raises:
        ValueError: a split has no image with a label.
    """

    def read(examples: Iterable[tuple], split: str) -> Features:
        features = extract_features(backbone, processor, examples)
        known = (features.labels >= 0).nonzero().flatten()
        if len(known) == 0:
            raise ValueError(f"the {split} images have no labels")
        return subset(features, known)

    train, test = read(train_examples, "training"), renumbered(read(test_examples, "test"), label_map)
    arguments = (train.features, train.labels, test.features, test.labels)
    return {"knn": knn_accuracy(*arguments), "linear": linear_accuracy(*arguments).accuracy}
