# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""k nearest neighbours on frozen features: weighted votes over cosine similarity, never a full distance matrix.

n training and m test images, d features.
"""

import torch
from torch.nn import functional


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
    bank = functional.normalize(train_features.float(), dim=1)
    num_classes = int(train_labels.max()) + 1
    predictions = []
    for part in functional.normalize(test_features.float(), dim=1).split(chunk):
        top, index = (part @ bank.T).topk(min(k, len(bank)), dim=1)
        votes = torch.zeros(len(part), num_classes, device=part.device)
        votes.scatter_add_(1, train_labels[index], (top / temperature).exp())
        predictions.append(votes.argmax(1))
    return torch.cat(predictions)


def knn_accuracy(
    train_features, train_labels, test_features, test_labels, k: int = 20, temperature: float = 0.07
) -> float:
    """Share of test images whose predicted class is right; arguments as in `knn_predict`."""
    predictions = knn_predict(train_features, train_labels, test_features, k, temperature)
    return (predictions == test_labels).float().mean().item()
