# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Share of images whose class is among the five highest scores, as an `evaluate` module. Stands by itself.

n images, C classes.
"""

import datasets
import evaluate
import numpy as np


def top_k_right(scores, references, k: int = 5) -> np.ndarray:
    """(n,) of 0 and 1: whether fewer than `k` classes score higher than the right one; scores (n, C).

    Classes that score the same as the right one count against it when they come first, as a stable sort has it.
    """
    scores, references = np.asarray(scores), np.asarray(references)
    right = scores[np.arange(len(scores)), references][:, None]
    earlier = np.arange(scores.shape[1])[None] < references[:, None]
    return ((scores > right) | ((scores == right) & earlier)).sum(1) < k


def top5_accuracy(scores, references) -> float:
    """Share of images (n, C) whose class is among the five highest scores; 0 to 1."""
    return float(top_k_right(scores, references).mean())


class Top5Accuracy(evaluate.Metric):
    """`predictions`: scores (n, C); `references`: n classes; `{"top5_accuracy": share}`."""

    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Sequence(datasets.Value("float32")), "references": datasets.Value("int64")}
        return evaluate.MetricInfo(
            description="Share of images whose class is among the five highest scores.",
            citation="",
            inputs_description="predictions: a score for each class; references: classes.",
            features=datasets.Features(features),
        )

    def _compute(self, predictions, references) -> dict[str, float]:
        return {"top5_accuracy": top5_accuracy(predictions, references)}
