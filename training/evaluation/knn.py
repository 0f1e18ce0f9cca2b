# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""k nearest neighbours on frozen features: weighted votes over cosine similarity, never a full distance matrix.

n training and m test images, d features, C classes.
"""

from itertools import product

import torch
from torch.nn import functional

from .task import Outcome, Task, check_selection, figure, fit_and_choose, judge


_ENTRIES = 2**24  # similarities held at once, by default


def knn_scores(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    settings: list[tuple[int, float]],
    num_classes: int | None = None,
    chunk: int | None = None,
) -> list[torch.Tensor]:
    """Votes (m, C) for each (k, temperature) of `settings`; a neighbour's vote weighs exp(similarity / temperature).

    Args:
        train_labels: (n,) classes, or (n, C) of 0 and 1.
        chunk: test images compared at once; memory is chunk * n. None for about 16 million similarities.
    """
    bank = functional.normalize(train_features.float(), dim=1)
    one_class = train_labels.ndim == 1
    num_classes = num_classes or (int(train_labels.max()) + 1 if one_class else train_labels.shape[1])
    most = min(max(k for k, _temperature in settings), len(bank))
    votes: list[list[torch.Tensor]] = [[] for _ in settings]
    for part in functional.normalize(test_features.float(), dim=1).split(chunk or max(1, _ENTRIES // len(bank))):
        top, index = (part @ bank.T).topk(most, dim=1)
        for place, (k, temperature) in enumerate(settings):
            # Only ratios of votes matter: taking off the largest keeps a small temperature from overflowing.
            weights = ((top[:, :k] - top[:, :1]) / temperature).exp()
            labels = train_labels[index[:, :k]]
            if one_class:
                counted = torch.zeros(len(part), num_classes, device=part.device).scatter_add_(1, labels, weights)
            else:
                counted = torch.einsum("bk,bkc->bc", weights, labels.float()) / weights.sum(1, keepdim=True)
            votes[place].append(counted)
    return [torch.cat(parts) for parts in votes]


def knn_predict(
    train_features: torch.Tensor,
    train_labels: torch.Tensor,
    test_features: torch.Tensor,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> torch.Tensor:
    """Predicted classes (m,) from (n, d), (n,) and (m, d); votes weigh exp(similarity / temperature).

    Args:
        k: neighbours (20: the paper's third-party table and DINO's protocol); at most n are used.
        temperature: 0.07 (DINO's protocol).
        chunk: test images compared at once; memory is chunk * n.
    """
    return knn_scores(train_features, train_labels, test_features, [(k, temperature)], chunk=chunk)[0].argmax(1)


def knn_accuracy(
    train_features, train_labels, test_features, test_labels, k: int = 20, temperature: float = 0.07
) -> float:
    """Share of test images whose predicted class is right; arguments as in `knn_predict`."""
    predictions = knn_predict(train_features, train_labels, test_features, k, temperature)
    return (predictions == test_labels).float().mean().item()


def knn(task: Task, ks=(20,), temperatures=(0.07,), selection: str = "validation", seed: int = 0) -> Outcome:
    """The kNN protocol. With several `ks` or `temperatures` the best pair on validation images is tested.

    Args:
        selection: `validation`, or `test` for the protocol of papers that report the best of several.

    Raises:
        ValueError: a value is out of range.
    """
    check_selection(selection)
    settings = list(product(ks, temperatures))
    if not settings or min(ks) < 1 or min(temperatures) <= 0:
        raise ValueError(f"k must be at least 1 and temperature above 0, got {list(ks)} and {list(temperatures)}")
    chosen, record = settings[0], None
    if len(settings) > 1:
        fit, choose = fit_and_choose(task, seed) if selection == "validation" else (task.train, task.test)
        scores = knn_scores(fit.features, fit.labels, choose.features, settings, task.num_classes)
        figures = [figure(one, choose.labels) for one in scores]
        best = max(range(len(settings)), key=figures.__getitem__)
        chosen = settings[best]
        candidates = [
            {"k": k, "temperature": temperature, "value": value}
            for (k, temperature), value in zip(settings, figures, strict=True)
        ]
        record = {"on": selection, "value": figures[best], "candidates": candidates}
        record["chosen"] = {"k": chosen[0], "temperature": chosen[1]}
    (votes,) = knn_scores(task.train.features, task.train.labels, task.test.features, [chosen], task.num_classes)
    outcome = judge(votes, task.test.labels, seed)
    outcome.selection, outcome.settings = record, {"k": chosen[0], "temperature": chosen[1]}
    return outcome
