# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Few-shot classification: n images a class, several draws, mean and Student's t interval over the draws.

n images, d features.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ...option import Range, check_options, option
from ...seeding import numpy_generator
from .. import intervals
from ..logistic import logistic_regression
from ..outcome import Outcome
from ..splits import Task
from . import Protocol, on_features


# Fixed, so that nothing has to be chosen: features have length 1, where this regularizes little.
STRENGTH = 10.0
_STEPS = 500  # enough for the accuracy to settle


@dataclass(frozen=True)
class FewshotOptions:
    """Draw i of every number of shots starts from the same order of the images.

    Raises:
        ValueError: a value is out of range.
    """

    shots: tuple[int, ...] = option(
        (1, 5, 10), "images a class (paper: 1 and 10)",
        Range(lambda values: values and min(values) >= 1, "be at least 1"),
    )  # fmt: skip
    draws: int = option(5, "independent draws", Range(lambda value: value >= 5, "be at least 5"))
    seed: int = option(0, "of all that is drawn")

    def __post_init__(self):
        check_options(self)


def fewshot(task: Task, options: FewshotOptions | None = None, device: torch.device | str = "cpu") -> Outcome:
    """Logistic regression on L2-normalized features of a few training images a class, tested on all test images.

    The value is that of the largest number of shots; `metrics` has all. Nothing is chosen. A class with fewer images
    than asked for gives those it has, and a note says so.

    Raises:
        ValueError: several labels an image.
    """
    options = options or FewshotOptions()
    if task.multi_label:
        raise ValueError("fewshot takes one class an image")
    train = functional.normalize(task.train.features, dim=1).numpy()
    test, truth = functional.normalize(task.test.features, dim=1).numpy(), task.test.labels.numpy()
    metrics = {}
    for count in sorted(set(options.shots)):
        accuracies = []
        for draw in range(options.draws):
            rows = draw_rows(task.train.labels, count, numpy_generator("fewshot", options.seed, draw))
            labels = task.train.labels.numpy()[rows]
            model = logistic_regression(train[rows], labels, STRENGTH, _STEPS, standardize=False)
            accuracies.append(float((model.predict(test) == truth).mean()))
        interval = intervals.of_shares(accuracies)
        metrics[f"{count}_shot"] = {"value": float(np.mean(accuracies)), "interval": interval, "draws": accuracies}
    most = max(options.shots)
    top = metrics[f"{most}_shot"]
    settings = {"shots": sorted(set(options.shots)), "draws": options.draws, "strength": STRENGTH}
    settings["seed"] = options.seed
    notes = short_classes(task.train.labels, options.shots)
    return Outcome(f"{most}_shot_accuracy", top["value"], top["interval"], metrics, settings=settings, notes=notes)


PROTOCOL = Protocol("1, 5 and 10 images a class, several draws", FewshotOptions, on_features(fewshot))


def short_classes(labels: torch.Tensor, shots: tuple[int, ...]) -> list[str]:
    """A sentence for each number of shots that some classes have too few images for."""
    counts = labels.unique(return_counts=True)[1]
    short = {count: int((counts < count).sum()) for count in sorted(set(shots))}
    return [
        f"{number} of {len(counts)} classes have fewer than {count} training images, and give all they have"
        for count, number in short.items()
        if number
    ]


def draw_rows(labels: torch.Tensor, count: int, generator: np.random.Generator) -> np.ndarray:
    """Numbers of `count` images of each class."""
    order = generator.permutation(len(labels))
    shuffled = labels.numpy()[order]
    return np.concatenate([order[shuffled == label][:count] for label in np.unique(shuffled)])
