# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""VISReg's objective in a plain PyTorch loop of ten lines: scikit-learn's digits, a small network, half a minute.

    python examples/objective_in_your_own_loop.py

Each step shows V = 4 noisy, shifted views of B = 256 digits; no label is used in training. A nearest-neighbor
classifier on the features then tells what was learned.
"""

import sys

import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import nn

from visreg_training.objective import VISRegObjective


def views(images: torch.Tensor, num_views: int = 4) -> torch.Tensor:
    """(B, 8, 8) -> (V, B, 64): each view shifted by up to one pixel, with contrast and noise of its own."""
    shifts = torch.randint(-1, 2, (num_views, 2)).tolist()
    shifted = torch.stack([torch.roll(images, shift, dims=(1, 2)) for shift in shifts])
    contrast = 1 + 0.3 * torch.randn(num_views, len(images), 1, 1)
    return (shifted * contrast + 0.15 * torch.randn_like(shifted)).flatten(2)


def main(steps: int = 400) -> float:
    """Train for a number of steps and return the accuracy of 5 nearest neighbors on the last 500 digits."""
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.images, dtype=torch.float32) / 16, digits.target
    train, test = images[:-500], images[-500:]

    backbone = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 256))
    projector = nn.Sequential(nn.BatchNorm1d(256), nn.GELU(), nn.Linear(256, 32))
    objective = VISRegObjective(num_slices=128, regularization_weight=0.6)
    optimizer = torch.optim.AdamW([*backbone.parameters(), *projector.parameters()], lr=1e-3)
    for step in range(steps):
        x = views(train[torch.randint(len(train), (256,))])  # (V, B, 64)
        z = projector(backbone(x).flatten(0, 1)).unflatten(0, x.shape[:2])  # (V, B, 32)
        terms = objective(z, num_global=4, step=step)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: " + ", ".join(f"{k} {v.item():.4f}" for k, v in terms._asdict().items()))

    with torch.no_grad():
        features, queries = backbone(train.flatten(1)), backbone(test.flatten(1))
    neighbors = KNeighborsClassifier(5).fit(features, labels[:-500])
    accuracy = neighbors.score(queries, labels[-500:])
    print(f"5 nearest neighbors, features of a network that saw no label: {accuracy:.3f}")
    return accuracy


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
