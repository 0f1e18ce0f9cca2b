# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The metrics as functions of arrays; metric_classes.py has them for `evaluate`.

scikit-learn computes what it has with the same value. By hand are: the AUROC, which a bootstrap asks for 200 times
with weights (scikit-learn takes six times as long, and warns where a class is absent); top 5, where scikit-learn lets
the later of two classes with the same score win; and the IoU, whose counts an image are what is drawn from.

n images, C classes, q queries.
"""

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score, average_precision_score


_IMBALANCED = 2  # times the images of the smallest class that make the largest one too large for plain accuracy


def accuracy(predictions: ArrayLike, references: ArrayLike) -> float:
    """Share of the n `predictions` (classes) that equal `references` (classes); 0 to 1."""
    return float(accuracy_score(references, predictions))


def class_balance(predictions: ArrayLike, references: ArrayLike) -> dict[str, float]:
    """`balanced_accuracy`, the mean over the classes of the share of their images that is right, and `majority_share`,
    what is right for him who always answers the largest class. Empty where the largest class has less than twice the
    images of the smallest: there they say what accuracy says.
    """
    predictions, references = np.asarray(predictions), np.asarray(references)
    classes, number, counts = np.unique(references, return_inverse=True, return_counts=True)
    if len(classes) == 0 or counts.max() < _IMBALANCED * counts.min():
        return {}
    right = np.bincount(number, predictions == references)
    return {
        "balanced_accuracy": float((right / counts).mean()),
        "majority_share": float(counts.max() / len(references)),
    }


def top_k_right(scores: ArrayLike, references: ArrayLike, k: int = 5) -> np.ndarray:
    """(n,) of 0 and 1: whether fewer than `k` classes score higher than the right one; scores (n, C).

    Classes that score the same as the right one count against it when they come first, as a stable sort has it.
    """
    scores, references = np.asarray(scores), np.asarray(references)
    right = scores[np.arange(len(scores)), references][:, None]
    earlier = np.arange(scores.shape[1])[None] < references[:, None]
    return ((scores > right) | ((scores == right) & earlier)).sum(1) < k


def top5_accuracy(scores: ArrayLike, references: ArrayLike) -> float:
    """Share of images (n, C) whose class is among the five highest scores; 0 to 1."""
    return float(top_k_right(scores, references).mean())


def class_aurocs(scores: ArrayLike, references: ArrayLike, weights: ArrayLike | None = None) -> np.ndarray:
    """(C,) areas under the ROC curves of scores (n, C) for references (n, C) of 0 and 1; nan where a class has no
    positive or no negative. Equal scores count half.

    Args:
        weights: (n,) weight of each image, as a bootstrap draws them; 1 by default.
    """
    scores, references = np.asarray(scores, float), np.asarray(references, float)
    weights = np.ones(len(scores)) if weights is None else np.asarray(weights, float)
    areas = []
    for column, truth in zip(scores.T, references.T, strict=True):
        _, level = np.unique(column, return_inverse=True)
        positive = np.bincount(level, weights * truth)
        negative = np.bincount(level, weights * (1 - truth))
        pairs = positive.sum() * negative.sum()
        below = negative.cumsum() - negative / 2  # negatives that score lower, half of those that score the same
        areas.append((positive * below).sum() / pairs if pairs > 0 else np.nan)
    return np.array(areas)


def macro_auroc(scores: ArrayLike, references: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Mean area over the classes that have positives and negatives; nan where none has."""
    return _mean_of_known(class_aurocs(scores, references, weights))


def mean_average_precision(scores: ArrayLike, relevant: ArrayLike) -> float:
    """Mean over the queries that have a relevant image of the average precision of their ranking, from scores and
    relevance (q, n); nan where no query has one."""
    pairs = zip(np.asarray(relevant), np.asarray(scores), strict=True)
    return _mean_of_known(np.array([average_precision_score(*pair) if pair[0].any() else np.nan for pair in pairs]))


def class_counts(prediction: ArrayLike, reference: ArrayLike, num_classes: int, ignore_index: int = 255) -> np.ndarray:
    """(2, C) pixels in the intersection and in the union of each class, over maps of one shape.

    Pixels whose reference is `ignore_index` count nowhere.
    """
    prediction, reference = np.asarray(prediction).ravel(), np.asarray(reference).ravel()
    known = reference != ignore_index
    prediction, reference = prediction[known], reference[known]
    intersection = np.bincount(reference[prediction == reference], minlength=num_classes)[:num_classes]
    both = np.bincount(prediction, minlength=num_classes) + np.bincount(reference, minlength=num_classes)
    return np.stack([intersection, both[:num_classes] - intersection])


def mean_iou_of_counts(counts: ArrayLike) -> float:
    """Mean over the classes that occur, in the references or the predictions; counts (2, C)."""
    intersection, union = np.asarray(counts, float)
    occurs = union > 0
    return float((intersection[occurs] / union[occurs]).mean()) if occurs.any() else float("nan")


def mean_iou(predictions: ArrayLike, references: ArrayLike, num_classes: int, ignore_index: int = 255) -> float:
    """Intersection over union, mean over the classes, counted over all pixels of n maps of any size."""
    pairs = zip(predictions, references, strict=True)
    return mean_iou_of_counts(sum(class_counts(*pair, num_classes, ignore_index) for pair in pairs))


def _mean_of_known(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")
