# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Area under the ROC curve, mean over the classes of a multi-label task, as an `evaluate` module. Stands by itself.

n images, C classes.
"""

import datasets
import evaluate
import numpy as np


def class_aurocs(scores, references, weights=None) -> np.ndarray:
    """(C,) areas under the ROC curves of scores (n, C) for references (n, C) of 0 and 1; nan where a class has no
    positive or no negative. Equal scores count half.

    Args:
        weights: (n,) weight of each image, as a bootstrap draws them; 1 by default.
    """
    scores, references = np.asarray(scores, float), np.asarray(references, float)
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, float)
    areas = []
    for column, truth in zip(scores.T, references.T, strict=True):
        _, place = np.unique(column, return_inverse=True)
        positive = np.bincount(place, weights * truth)
        negative = np.bincount(place, weights * (1 - truth))
        pairs = positive.sum() * negative.sum()
        below = negative.cumsum() - negative / 2  # negatives that score lower, half of those that score the same
        areas.append((positive * below).sum() / pairs if pairs > 0 else np.nan)
    return np.array(areas)


def macro_auroc(scores, references, weights=None) -> float:
    """Mean area over the classes that have positives and negatives; nan where none has."""
    areas = class_aurocs(scores, references, weights)
    return float(np.nanmean(areas)) if np.isfinite(areas).any() else float("nan")


class MacroAUROC(evaluate.Metric):
    """`predictions`: scores (n, C); `references`: (n, C) of 0 and 1; `{"macro_auroc": area}`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Sequence(datasets.Value("float32")),
            "references": datasets.Sequence(datasets.Value("int64")),
        }
        return evaluate.MetricInfo(
            description="Area under the ROC curve, mean over the classes.",
            citation="",
            inputs_description="predictions: a score for each class; references: 0 or 1 for each class.",
            features=datasets.Features(features),
        )

    def _compute(self, predictions, references) -> dict[str, float]:
        return {"macro_auroc": macro_auroc(predictions, references)}
