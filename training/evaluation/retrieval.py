# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Image retrieval: each test image ranks the training images (or the other test images) by cosine similarity.

q queries, n images of the gallery, d features.
"""

import torch
from torch.nn import functional

from . import bootstrap
from .features import Features
from .task import Outcome, Task


RECALLS = (1, 5, 10)
_ENTRIES = 2**23  # similarities ranked at once


def retrieval(task: Task, recalls=RECALLS, gallery: str = "train", seed: int = 0) -> Outcome:
    """Mean average precision over the whole ranking, and recall@k: the share of queries with a relevant image among
    the first k. Images are relevant that share a class with the query; queries without any are left out, and counted.

    Args:
        gallery: `train`, or `test`: every test image then ranks all others.

    Raises:
        ValueError: a value is out of range, or no query has a relevant image.
    """
    if gallery not in ("train", "test"):
        raise ValueError(f"gallery is train or test, not {gallery!r}")
    if not recalls or min(recalls) < 1:
        raise ValueError(f"k of recall must be at least 1, got {list(recalls)}")
    precisions, first = rank(task.test, task.train if gallery == "train" else None)
    known = precisions.isfinite()
    if not known.any():
        raise ValueError("no query has a relevant image in the gallery")
    precisions, first = precisions[known], first[known]
    metrics = {f"recall@{k}": (first < k).double().mean().item() for k in sorted(set(recalls))}
    metrics["queries_left_out"] = int((~known).sum())
    interval = bootstrap.of_mean(precisions.numpy(), seed)
    settings = {"gallery": gallery, "similarity": "cosine", "seed": seed}
    return Outcome("mean_average_precision", precisions.mean().item(), interval, metrics, settings=settings)


def rank(queries: Features, gallery: Features | None) -> tuple[torch.Tensor, torch.Tensor]:
    """Average precision (q,), nan without a relevant image, and place of the first relevant image (q,), from 0.

    Args:
        gallery: None for the queries themselves, each without itself.
    """
    bank = functional.normalize((gallery or queries).features, dim=1)
    labels = (gallery or queries).labels
    directions = functional.normalize(queries.features, dim=1)
    precisions, firsts = [], []
    for rows in torch.arange(len(directions)).split(max(1, _ENTRIES // len(bank))):
        similarity = directions[rows] @ bank.T
        if gallery is None:
            similarity[torch.arange(len(rows)), rows] = -torch.inf
        order = similarity.argsort(dim=1, descending=True, stable=True)
        if gallery is None:
            order = order[:, :-1]  # the query itself, which comes last
        hits = relevance(queries.labels[rows], labels, order)
        found = hits.cumsum(1)
        places = torch.arange(1, order.shape[1] + 1)
        precisions.append((found / places * hits).double().sum(1) / found[:, -1])
        firsts.append(torch.where(hits.any(1), hits.int().argmax(1), order.shape[1]))
    return torch.cat(precisions), torch.cat(firsts)


def relevance(wanted: torch.Tensor, labels: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """(b, n) whether the ranked images share a class with the query."""
    if labels.ndim == 1:
        return labels[order] == wanted[:, None]
    return (wanted.float() @ labels.float().T > 0).gather(1, order)
