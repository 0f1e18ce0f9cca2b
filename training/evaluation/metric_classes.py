# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The metrics as `evaluate.Metric` classes: `MacroAUROC().compute(...)`. `evaluate` takes seconds to import, and the
protocols use the functions.

n images, C classes, q queries.
"""

import datasets
import evaluate
from numpy.typing import ArrayLike

from .metrics import accuracy, macro_auroc, mean_average_precision, mean_iou, top5_accuracy


_CLASS = datasets.Value("int64")
_CLASSES = datasets.Sequence(datasets.Value("int64"))
_SCORES = datasets.Sequence(datasets.Value("float32"))


def _info(description: str, predictions: ArrayLike, references: ArrayLike, inputs: str) -> evaluate.MetricInfo:
    features = datasets.Features({"predictions": predictions, "references": references})
    return evaluate.MetricInfo(
        description=description,
        citation="",
        inputs_description=f"predictions, references: {inputs}",
        features=features,
    )


class Accuracy(evaluate.Metric):
    """`predictions`, `references`: n classes each; `{"accuracy": share}`."""

    def _info(self) -> evaluate.MetricInfo:
        return _info("Share of images whose predicted class is right.", _CLASS, _CLASS, "classes.")

    def _compute(self, predictions: ArrayLike, references: ArrayLike) -> dict[str, float]:
        return {"accuracy": accuracy(predictions, references)}


class Top5Accuracy(evaluate.Metric):
    """`predictions`: scores (n, C); `references`: n classes; `{"top5_accuracy": share}`."""

    def _info(self) -> evaluate.MetricInfo:
        text = "Share of images whose class is among the five highest scores."
        return _info(text, _SCORES, _CLASS, "a score for each class; classes.")

    def _compute(self, predictions: ArrayLike, references: ArrayLike) -> dict[str, float]:
        return {"top5_accuracy": top5_accuracy(predictions, references)}


class MacroAUROC(evaluate.Metric):
    """`predictions`: scores (n, C); `references`: (n, C) of 0 and 1; `{"macro_auroc": area}`."""

    def _info(self) -> evaluate.MetricInfo:
        text = "Area under the ROC curve, mean over the classes."
        return _info(text, _SCORES, _CLASSES, "a score for each class; 0 or 1 for each class.")

    def _compute(self, predictions: ArrayLike, references: ArrayLike) -> dict[str, float]:
        return {"macro_auroc": macro_auroc(predictions, references)}


class MeanAveragePrecision(evaluate.Metric):
    """`predictions`: scores (q, n); `references`: relevance (q, n) of 0 and 1; `{"mean_average_precision": share}`."""

    def _info(self) -> evaluate.MetricInfo:
        text = "Average precision of each query's ranking, mean over the queries."
        return _info(text, _SCORES, _CLASSES, "scores of the ranked images; whether each is relevant.")

    def _compute(self, predictions: ArrayLike, references: ArrayLike) -> dict[str, float]:
        return {"mean_average_precision": mean_average_precision(predictions, references)}


class MeanIoU(evaluate.Metric):
    """`predictions`, `references`: n maps of classes; `{"mean_iou": share}`; takes num_classes and ignore_index."""

    def _info(self) -> evaluate.MetricInfo:
        maps = datasets.Sequence(_CLASSES)
        return _info("Intersection over union, mean over the classes.", maps, maps, "maps of classes.")

    def _compute(
        self, predictions: ArrayLike, references: ArrayLike, num_classes: int, ignore_index: int = 255
    ) -> dict[str, float]:
        return {"mean_iou": mean_iou(predictions, references, num_classes, ignore_index)}
