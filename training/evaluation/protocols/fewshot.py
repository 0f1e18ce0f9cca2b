# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Few-shot classification: n images a class, several draws, mean and Student's t interval over the draws.

n images, d features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from ...option import SEED, Range, check_options, option
from ...seeding import numpy_generator
from .. import intervals
from ..inputs import Inputs
from ..logistic import logistic_regression
from ..outcome import Outcome
from ..splits import Task
from . import Protocol, on_features
from .linear import RELEASED, LinearOptions, linear_on_images


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
    draws: int = option(
        5, "independent draws; 1: none but the release's, whose interval is over the test images",
        Range(lambda value: value == 1 or value >= 5, "be 1, or at least 5"),
    )  # fmt: skip
    classifier: str = option(
        "logistic", "regression on features; heads: the release's linear protocol", ("logistic", "heads")
    )
    seed: int = option(0, "of all that is drawn", SEED)

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
    if options.classifier != "logistic":
        raise ValueError("heads are trained on images, which a task in memory has not")
    train = functional.normalize(task.train.features, dim=1).numpy()
    test, truth = functional.normalize(task.test.features, dim=1).numpy(), task.test.labels.numpy()

    def measure(rows: np.ndarray) -> float:
        labels = task.train.labels.numpy()[rows]
        model = logistic_regression(train[rows], labels, STRENGTH, _STEPS, standardize=False)
        return float((model.predict(test) == truth).mean())

    outcome = over_draws(task, options, measure)
    outcome.settings["strength"] = STRENGTH
    return outcome


def over_draws(task: Task, options: FewshotOptions, measure: Callable[[np.ndarray], float]) -> Outcome:
    """The accuracies that `measure` finds from the drawn training images, for each number of shots.

    Raises:
        ValueError: several labels an image.
    """
    if task.multi_label:
        raise ValueError("fewshot takes one class an image")
    metrics, count_of_test = {}, len(task.test.labels)
    for count in sorted(set(options.shots)):
        generators = [numpy_generator("fewshot", options.seed, draw) for draw in range(options.draws)]
        found = [measure(draw_rows(task.train.labels, count, generator)) for generator in generators]
        of_images = intervals.of_share(round(found[0] * count_of_test), count_of_test)
        interval = intervals.of_shares(found) if len(found) > 1 else of_images
        metrics[f"{count}_shot"] = {"value": float(np.mean(found)), "interval": interval, "draws": found}
    most = max(options.shots)
    top = metrics[f"{most}_shot"]
    settings = {"shots": sorted(set(options.shots)), "draws": options.draws, "seed": options.seed}
    notes = short_classes(task.train.labels, options.shots)
    return Outcome(f"{most}_shot_accuracy", top["value"], top["interval"], metrics, settings=settings, notes=notes)


def evaluate(inputs: Inputs, options: FewshotOptions) -> Outcome | None:
    """Few-shot classification: on features the main process works, with heads on images all do."""
    if options.classifier == "logistic":
        return on_features(fewshot)(inputs, options)
    task, heads = inputs.task(), LinearOptions(**HEADS, seed=options.seed)
    outcomes = []

    def measure(rows: np.ndarray) -> float:
        outcomes.append(linear_on_images(inputs, task, heads, torch.from_numpy(rows)))
        return outcomes[-1].value

    outcome = over_draws(task, options, measure)
    last = outcomes[-1]
    outcome.selection, outcome.settings = last.selection, last.settings | outcome.settings
    outcome.notes += [
        f"{count} shots: {note}"
        for count, first in zip(sorted(set(options.shots)), outcomes[:: options.draws], strict=True)
        for note in first.notes
    ]
    return outcome


HEADS = {name: value for name, value in RELEASED.items() if name in LinearOptions.__dataclass_fields__}
PRESETS = {
    "released": {
        "shots": (1, 10), "draws": 1, "classifier": "heads", "seed": 42, "layers": 4, "pooling": "cls",
        "precision": "bfloat16",
    }
}  # fmt: skip
PROTOCOL = Protocol("1, 5 and 10 images a class, several draws", FewshotOptions, evaluate, presets=PRESETS)


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
