# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a protocol found, and how the scores of a classifier become that.

n images, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from sklearn.metrics import precision_score, recall_score

from ..run_folder import Json
from . import intervals
from .metrics import accuracy, class_aurocs, class_balance, macro_auroc, top_k_right


LABEL_METRICS = ("macro_auroc", "exact_match")


@dataclass
class Outcome:
    """What a protocol found.

    Attributes:
        metric, value, interval: the result and its 95 % interval.
        metrics: further numbers.
        selection: what was chosen, on what, and how it did there; None where nothing was chosen.
        settings: of the protocol.
        predictions: (n,) classes of the test images, where the task has one class an image.
        features: what was taken of the model and how, where it is not what `Inputs.task` takes.
        notes: sentences without which the number would mislead; they stand wherever it is shown.
    """

    metric: str
    value: float
    interval: tuple[float, float]
    metrics: Json = field(default_factory=dict)
    selection: Json | None = None
    settings: Json = field(default_factory=dict)
    predictions: np.ndarray | None = None
    features: Json | None = None
    notes: list[str] = field(default_factory=list)


def metric_value(scores: torch.Tensor, labels: torch.Tensor) -> float:
    """Accuracy of scores (n, C) for classes (n,), macro AUROC for labels (n, C)."""
    if labels.ndim == 2:
        return macro_auroc(scores.numpy(), labels.numpy())
    return accuracy(scores.argmax(1).numpy(), labels.numpy())


def score(scores: torch.Tensor, labels: torch.Tensor, seed: int = 0, label_metric: str = "macro_auroc") -> Outcome:
    """The result of scores (n, C) with its interval over the test images.

    Args:
        label_metric: what images with several labels are measured by, `exact_match` of all of them at a probability of
            0.5 (scores are logits then).
    """
    points, truth = scores.float().numpy(), labels.numpy()
    if labels.ndim == 2 and label_metric == "exact_match":
        return exact_match(points, truth)
    if labels.ndim == 2:
        value = macro_auroc(points, truth)
        interval = intervals.of_statistic(lambda weights: macro_auroc(points, truth, weights), len(truth), seed)
        known = int(np.isfinite(class_aurocs(points, truth)).sum())
        all_known = known == truth.shape[1]
        notes = [] if all_known else [f"mean over {known} of {truth.shape[1]} classes: the others have no AUROC"]
        return Outcome("macro_auroc", value, interval, notes=notes)
    predictions = points.argmax(1)
    metrics = class_balance(predictions, truth)
    if points.shape[1] > 5:
        metrics["top5_accuracy"] = float(top_k_right(points, truth).mean())
    interval = intervals.of_share((predictions == truth).sum(), len(truth))
    return Outcome("accuracy", accuracy(predictions, truth), interval, metrics, predictions=predictions)


def exact_match(logits: np.ndarray, truth: np.ndarray) -> Outcome:
    """Share of images whose labels (n, C) are all right at a probability of 0.5; AUROC, precision and recall, means
    over the labels, beside it."""
    predicted = logits > 0
    right = (predicted == (truth > 0)).all(1)
    averages = {"average": "macro", "zero_division": 0}
    metrics = {
        "macro_auroc": macro_auroc(logits, truth),
        "macro_precision": float(precision_score(truth, predicted, **averages)),
        "macro_recall": float(recall_score(truth, predicted, **averages)),
    }
    return Outcome("exact_match", float(right.mean()), intervals.of_share(right.sum(), len(right)), metrics)


def select(
    on: str, candidates: Sequence[Json], values: Sequence[float], losses: Sequence[float] | None = None
) -> tuple[int, Json]:
    """The one place of a choice: number of the best candidate, and the record of it.

    Args:
        on: the images that `values` were measured on: `validation` or `test`.
        losses: on the same images. On few of them many candidates have the same value: the lowest loss decides. None
            for the first of equals.
    """

    def merit(number: int) -> tuple[float, float]:
        value, loss = values[number], losses[number] if losses else 0.0
        return (value if np.isfinite(value) else -np.inf, -loss if np.isfinite(loss) else -np.inf)

    best = max(range(len(values)), key=merit)
    listed = [candidate | {"value": value} for candidate, value in zip(candidates, values, strict=True)]
    if losses:
        listed = [candidate | {"loss": loss} for candidate, loss in zip(listed, losses, strict=True)]
    return best, {"on": on, "chosen": candidates[best], "value": values[best], "candidates": listed}
