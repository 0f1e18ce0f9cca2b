# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A linear classifier on frozen features, its strength of regularisation chosen on validation images.

n training and m test images, d features.
"""

from typing import NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)


class LinearResult(NamedTuple):
    """`accuracy` on the test images; `strength`: the inverse regularisation chosen; `validation`: its accuracy there."""

    accuracy: float
    strength: float
    validation: float


def linear_accuracy(train_features, train_labels, test_features, test_labels, seed: int = 0) -> LinearResult:
    """Logistic regression on standardised features (full batch, L-BFGS), for sets of up to some ten thousand images.

    The strength is chosen on a fifth of the training images, kept apart; the test images are touched once, by the
    classifier that is then fitted on all training images.
    """
    x, y = as_arrays(train_features, train_labels)
    fit_x, held_x, fit_y, held_y = train_test_split(x, y, test_size=0.2, random_state=seed, stratify=stratum(y))
    scores = [classifier(strength).fit(fit_x, fit_y).score(held_x, held_y) for strength in STRENGTHS]
    best = int(np.argmax(scores))
    final = classifier(STRENGTHS[best]).fit(x, y)
    return LinearResult(
        float(final.score(*as_arrays(test_features, test_labels))), STRENGTHS[best], float(scores[best])
    )


def classifier(strength: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=300))


def as_arrays(features: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    return features.double().numpy(), labels.numpy()


def stratum(labels: np.ndarray) -> np.ndarray | None:
    """The labels, if each class can be shared out, else None (a plain split)."""
    return labels if np.bincount(labels)[np.unique(labels)].min() >= 5 else None
