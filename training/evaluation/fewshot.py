# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Few-shot classification: n images a class, several draws, mean and Student's t interval over the draws.

n images, d features.
"""

import warnings

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch.nn import functional

from . import bootstrap
from .task import Outcome, Task


SHOTS = (1, 5, 10)
MIN_DRAWS = 5
# Fixed, so that nothing has to be chosen: features have length 1, where this regularises little.
STRENGTH = 10.0


def fewshot(task: Task, shots=SHOTS, draws: int = 5, seed: int = 0) -> Outcome:
    """Logistic regression on L2-normalised features of a few training images a class, tested on all test images.

    The value is that of the largest number of shots; `metrics` has all. Nothing is chosen. A class with fewer images
    than asked for gives those it has.

    Args:
        shots: images a class (1 and 10: paper).
        draws: independent draws, at least 5; draw i of every number of shots starts from the same order of the images.

    Raises:
        ValueError: fewer draws, shots below 1, several labels an image, or a single class.
    """
    if draws < MIN_DRAWS:
        raise ValueError(f"draws must be at least {MIN_DRAWS}, got {draws}")
    if not shots or min(shots) < 1:
        raise ValueError(f"shots must be at least 1, got {list(shots)}")
    if task.multi_label:
        raise ValueError("fewshot takes one class an image")
    if len(task.train.labels.unique()) < 2:
        raise ValueError("fewshot needs at least two classes in the training split")
    train = functional.normalize(task.train.features, dim=1).numpy()
    test, truth = functional.normalize(task.test.features, dim=1).numpy(), task.test.labels.numpy()
    metrics = {}
    for count in sorted(set(shots)):
        accuracies = []
        for draw in range(draws):
            rows = draw_rows(task.train.labels, count, np.random.default_rng((seed, draw)))
            accuracies.append(shot_accuracy(train[rows], task.train.labels.numpy()[rows], test, truth))
        interval = bootstrap.of_draws(accuracies)
        metrics[f"{count}_shot"] = {"value": float(np.mean(accuracies)), "interval": interval, "draws": accuracies}
    top = metrics[f"{max(shots)}_shot"]
    settings = {"shots": sorted(set(shots)), "draws": draws, "strength": STRENGTH, "seed": seed}
    return Outcome(f"{max(shots)}_shot_accuracy", top["value"], top["interval"], metrics, settings=settings)


def draw_rows(labels: torch.Tensor, count: int, generator: np.random.Generator) -> np.ndarray:
    """Numbers of `count` images of each class."""
    order = generator.permutation(len(labels))
    shuffled = labels.numpy()[order]
    return np.concatenate([order[shuffled == label][:count] for label in np.unique(shuffled)])


def shot_accuracy(train: np.ndarray, labels: np.ndarray, test: np.ndarray, truth: np.ndarray) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 500 steps are enough for the accuracy to settle
        model = LogisticRegression(C=STRENGTH, max_iter=500).fit(train, labels)
    return float((model.predict(test) == truth).mean())
