# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Mean intersection over union of segmentation maps, as an `evaluate` module. Stands by itself.

n maps of any size, C classes.
"""

import datasets
import evaluate
import numpy as np


def class_counts(prediction, reference, num_classes: int, ignore_index: int = 255) -> np.ndarray:
    """(2, C) pixels in the intersection and in the union of each class, over maps of one shape.

    Pixels whose reference is `ignore_index` count nowhere.
    """
    prediction, reference = np.asarray(prediction).ravel(), np.asarray(reference).ravel()
    known = reference != ignore_index
    prediction, reference = prediction[known], reference[known]
    intersection = np.bincount(reference[prediction == reference], minlength=num_classes)[:num_classes]
    both = np.bincount(prediction, minlength=num_classes) + np.bincount(reference, minlength=num_classes)
    return np.stack([intersection, both[:num_classes] - intersection])


def mean_iou_of_counts(counts) -> float:
    """Mean over the classes that occur, in the references or the predictions; counts (2, C)."""
    intersection, union = np.asarray(counts, float)
    occurs = union > 0
    return float((intersection[occurs] / union[occurs]).mean()) if occurs.any() else float("nan")


class MeanIoU(evaluate.Metric):
    """`predictions`, `references`: n maps of classes; `{"mean_iou": share}`, counted over all pixels of all maps."""

    def _info(self) -> evaluate.MetricInfo:
        maps = datasets.Sequence(datasets.Sequence(datasets.Value("int64")))
        return evaluate.MetricInfo(
            description="Intersection over union, mean over the classes.",
            citation="",
            inputs_description="predictions, references: maps of classes; num_classes; ignore_index (255).",
            features=datasets.Features({"predictions": maps, "references": maps}),
        )

    def _compute(self, predictions, references, num_classes, ignore_index=255) -> dict[str, float]:
        pairs = zip(predictions, references, strict=True)
        counts = sum(class_counts(prediction, truth, num_classes, ignore_index) for prediction, truth in pairs)
        return {"mean_iou": mean_iou_of_counts(counts)}
