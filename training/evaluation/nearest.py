# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The nearest images by cosine similarity, and how they vote: the kNN of the protocol, of a run and of pictures.

n images of the bank, m queries, d features, k neighbors, C classes.
"""

from collections.abc import Iterator

import torch
from torch.nn import functional


_ENTRIES = 2**24  # similarities held at once, by default


def nearest(
    queries: torch.Tensor, bank: torch.Tensor, k: int, chunk: int | None = None
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Similarities and numbers (b, k) of the nearest images of `bank` (n, d), for b of the `queries` (m, d) at a time.

    Args:
        k: neighbors; at most n are given.
        chunk: queries compared at once; memory is chunk * n. None for about 16 million similarities.
    """
    bank = functional.normalize(bank.float(), dim=1)
    for part in functional.normalize(queries.float(), dim=1).split(chunk or max(1, _ENTRIES // len(bank))):
        yield tuple((part @ bank.T).topk(min(k, len(bank)), dim=1))


def vote(similarity: torch.Tensor, labels: torch.Tensor, temperature: float, num_classes: int) -> torch.Tensor:
    """Votes (b, C) of neighbors, nearest first; one weighs exp(similarity / temperature), and -inf weighs nothing.

    Args:
        similarity: (b, k).
        labels: of the neighbors: classes (b, k), or (b, k, C) of 0 and 1, whose votes are shares of 1.
    """
    # Only ratios of votes matter: taking off the largest keeps a small temperature from overflowing.
    weights = ((similarity - similarity[:, :1]) / temperature).exp().nan_to_num(0)
    if labels.ndim == 2:
        votes = torch.zeros(len(weights), num_classes, device=weights.device)
        return votes.scatter_add_(1, labels, weights)
    return torch.einsum("bk,bkc->bc", weights, labels.float()) / weights.sum(1, keepdim=True)
