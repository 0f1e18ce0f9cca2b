# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Share of right predictions, as an `evaluate` module: `evaluate.load(".../metrics/accuracy")`. Stands by itself.

n images.
"""

import datasets
import evaluate
import numpy as np


def accuracy(predictions, references) -> float:
    """Share of the n `predictions` (classes) that equal `references` (classes); 0 to 1."""
    return float(np.mean(np.asarray(predictions) == np.asarray(references)))


class Accuracy(evaluate.Metric):
    """`predictions`, `references`: n classes each; `{"accuracy": share}`."""

    def _info(self) -> evaluate.MetricInfo:
        features = datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")})
        return evaluate.MetricInfo(
            description="Share of images whose predicted class is right.",
            citation="",
            inputs_description="predictions, references: classes.",
            features=features,
        )

    def _compute(self, predictions, references) -> dict[str, float]:
        return {"accuracy": accuracy(predictions, references)}
