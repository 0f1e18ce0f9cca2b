# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""k nearest neighbors on frozen features: weighted votes over cosine similarity, never a full distance matrix.

n training and m test images, d features, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch

from ...option import SEED, Range, check_options, option
from ..nearest import nearest, vote
from ..outcome import Outcome, metric_value, score, select
from ..splits import SELECTIONS, Task, fit_and_choose
from . import Protocol, on_features


@dataclass(frozen=True)
class KnnOptions:
    """With several `k` or `temperature` the best pair on `selection` images is tested.

    Raises:
        ValueError: a value is out of range.
    """

    k: tuple[int, ...] = option(
        (20,), "neighbors; the best of several is chosen (paper's third-party table, DINO: 20)",
        Range(lambda values: values and min(values) >= 1, "be at least 1"),
    )  # fmt: skip
    temperature: tuple[float, ...] = option(
        (0.07,), "of the weights exp(similarity / temperature) (DINO: 0.07)",
        Range(lambda values: values and min(values) > 0, "be above 0"),
    )  # fmt: skip
    selection: str = option("validation", "what is chosen on; `test`: as in papers, marked in the result", SELECTIONS)
    seed: int = option(0, "of all that is drawn", SEED)

    def __post_init__(self):
        check_options(self)


def knn(task: Task, options: KnnOptions | None = None, device: torch.device | str = "cpu") -> Outcome:
    """The kNN protocol, on the CPU."""
    options = options or KnnOptions()
    settings = list(product(options.k, options.temperature))
    candidates = [{"k": k, "temperature": temperature} for k, temperature in settings]
    best, record = 0, None
    if len(settings) > 1:
        fit, choose = fit_and_choose(task, options.seed, options.selection).copies()
        scores = knn_scores(fit.features, fit.labels, choose.features, settings, task.num_classes)
        values = [metric_value(one, choose.labels) for one in scores]
        best, record = select(options.selection, candidates, values)
    train, test = task.train, task.test
    (votes,) = knn_scores(train.features, train.labels, test.features, [settings[best]], task.num_classes)
    outcome = score(votes, test.labels, options.seed)
    outcome.selection, outcome.settings = record, candidates[best]
    return outcome


DINOV2 = {"k": (10, 20, 100, 200), "temperature": (0.07,), "selection": "test", "layers": 1, "pooling": "cls"}
PROTOCOL = Protocol(
    "k nearest neighbors on frozen features", KnnOptions, on_features(knn), layers=1, presets={"dinov2": DINOV2}
)  # layers: DINO


def knn_scores(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    settings: Sequence[tuple[int, float]] = ((20, 0.07),),
    num_classes: int | None = None,
    chunk: int | None = None,
) -> list[torch.Tensor]:
    """Votes (m, C) for each (k, temperature) of `settings`, from (n, d), labels, and (m, d).

    Args:
        train_labels: (n,) classes, or (n, C) of 0 and 1.
        chunk: test images compared at once, as in `nearest`.
    """
    if num_classes is None:
        num_classes = int(train_labels.max()) + 1 if train_labels.ndim == 1 else train_labels.shape[1]
    votes: list[list[torch.Tensor]] = [[] for _ in settings]
    most = max(k for k, _temperature in settings)
    for similarity, index in nearest(test_features, train_features, most, chunk):
        for counted, (k, temperature) in zip(votes, settings, strict=True):
            counted.append(vote(similarity[:, :k], train_labels[index[:, :k]], temperature, num_classes))
    return [torch.cat(parts) for parts in votes]


def knn_accuracy(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    test_labels: torch.Tensor,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Share of test images whose predicted class is right: the kNN of the end of a run and of the analyses."""
    (votes,) = knn_scores(train_features, train_labels, test_features, [(k, temperature)])
    return (votes.argmax(1) == test_labels).float().mean().item()
