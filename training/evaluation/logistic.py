# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The full-batch linear solver: logistic regression by L-BFGS, its strength chosen on images kept apart.

n images, d features, C classes.
"""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler


STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # inverse regularization
_STEPS = 300  # after these the accuracy has settled, if not the last digits


def logistic_regression(
    x: np.ndarray, y: np.ndarray, strength: float, steps: int = _STEPS, standardize: bool = True
) -> Pipeline:
    """Fitted on features (n, d) and classes (n,), in float64 where these are."""
    model = LogisticRegression(C=strength, max_iter=steps)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)  # few images of many classes
        return (make_pipeline(StandardScaler(), model) if standardize else make_pipeline(model)).fit(x, y)


def compare_strengths(
    fit: tuple[np.ndarray, np.ndarray], choose: tuple[np.ndarray, np.ndarray], strengths: Sequence[float] = STRENGTHS
) -> tuple[list[Pipeline], list[float], list[float]]:
    """A model for each strength, fitted on `fit` (features, classes), its accuracy and its loss on `choose`."""
    models = [logistic_regression(*fit, strength) for strength in strengths]
    return models, [float(model.score(*choose)) for model in models], [mean_loss(model, *choose) for model in models]


def mean_loss(model: Pipeline, x: np.ndarray, y: np.ndarray) -> float:
    """Mean cross entropy; images of classes that the model was not fitted on count as if given a chance of 1e-12."""
    found = model.predict_log_proba(x)
    column = np.searchsorted(model[-1].classes_, y).clip(max=found.shape[1] - 1)
    of_truth = np.where(model[-1].classes_[column] == y, found[np.arange(len(y)), column], -np.inf)
    return float(-of_truth.clip(min=np.log(1e-12)).mean())


def as_arrays(features: torch.Tensor, labels: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Features in float64, and classes."""
    return features.double().numpy(), labels.numpy()
