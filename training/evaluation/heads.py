# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Many linear classifiers that differ in learning rate and weight decay, trained together as one matrix product.

Each is BN (no affine part: the linear layer has it) and Linear, trained by SGD with momentum under a cosine (method,
section 5). The statistics of BN depend on the features only, so all heads share them; logits of all heads are one
product, and so is the gradient, which is written out because it is that of a softmax.

n images, B of a batch, d features, H heads, C classes.
"""

import math
from collections.abc import Iterator
from itertools import product

import torch
from torch.nn import functional

from ..seeding import torch_generator
from .metrics import macro_auroc


LEARNING_RATES = tuple(float(f"{1e-4 * 5000 ** (step / 12):.3g}") for step in range(13))  # 1e-4 to 0.5 (paper)
MOMENTUM = 0.9  # paper
EPS = 1e-6
_BN_MOMENTUM = 0.1  # PyTorch's
_INIT_STD = 0.01
_CHUNK = 512  # images scored at once


class BatchedHeads:
    """H classifiers on the same batches.

    Args:
        width: d.
        num_classes: C.
        learning_rates: for a batch of 256; each is scaled by batch_size / 256 (paper).
        weight_decays: each learning rate is trained with each of these (paper: none, 0).
        multi_label: independent sigmoids instead of a softmax.
        seed: of the first weights, the same for every head.

    Attributes:
        settings: (learning rate, weight decay) of each head, in the order of the results.
    """

    def __init__(
        self,
        width: int,
        num_classes: int,
        learning_rates=LEARNING_RATES,
        weight_decays=(0.0,),
        multi_label: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ):
        self.settings = list(product(learning_rates, weight_decays))
        self.num_classes, self.multi_label = num_classes, multi_label
        heads = len(self.settings)
        generator = torch_generator("heads", seed)
        first = torch.randn(width, num_classes, generator=generator) * _INIT_STD
        self.weight = first.T.repeat(heads, 1).contiguous().to(device)  # (H * C, d)
        self.bias = torch.zeros(heads * num_classes, device=device)
        self.weight_momentum, self.bias_momentum = torch.zeros_like(self.weight), torch.zeros_like(self.bias)
        rates, decays = torch.tensor(self.settings, device=device).T
        self.rates, self.decays = (row.repeat_interleave(num_classes) for row in (rates, decays))
        self.decaying = bool((decays > 0).any())
        self.mean, self.var = torch.zeros(width, device=device), torch.ones(width, device=device)

    @torch.no_grad()
    def step(self, features: torch.Tensor, targets: torch.Tensor, factor: float) -> None:
        """One update of every head. `features`: (B, d); `targets`: (B,) classes or (B, C) of 0 and 1; `factor`: what
        the schedule and the batch size make of the learning rates."""
        # torch.batch_norm is one pass where var_mean and a difference are four, and it keeps the running statistics.
        statistics = (self.mean, self.var, len(features) > 1, _BN_MOMENTUM, EPS, False)
        inputs = torch.batch_norm(features, None, None, *statistics)
        gradient = self.logit_gradient(torch.addmm(self.bias, inputs, self.weight.T), targets)
        if self.decaying:
            self.weight_momentum.mul_(MOMENTUM).addcmul_(self.weight, self.decays[:, None]).addmm_(gradient.T, inputs)
            self.bias_momentum.mul_(MOMENTUM).addcmul_(self.bias, self.decays).add_(gradient.sum(0))
        else:
            self.weight_momentum.addmm_(gradient.T, inputs, beta=MOMENTUM)
            self.bias_momentum.mul_(MOMENTUM).add_(gradient.sum(0))
        self.weight.addcmul_(self.weight_momentum, self.rates[:, None], value=-factor)
        self.bias.addcmul_(self.bias_momentum, self.rates, value=-factor)

    def logit_gradient(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Gradient (B, H * C) of every head's mean loss; overwrites `logits`."""
        logits = logits.view(len(logits), -1, self.num_classes)
        if self.multi_label:
            gradient = logits.sigmoid_().sub_(targets[:, None].to(logits.dtype))
            return gradient.div_(len(logits) * self.num_classes).flatten(1)
        # By hand: torch.softmax takes four times as long over few classes.
        gradient = logits.sub_(logits.amax(2, keepdim=True)).exp_()
        gradient.div_(gradient.sum(2, keepdim=True))
        wanted = targets[:, None, None].expand(-1, gradient.shape[1], 1)
        gradient.scatter_add_(2, wanted, gradient.new_full(wanted.shape, -1.0))
        return gradient.div_(len(logits)).flatten(1)

    @torch.no_grad()
    def scores(
        self, features: torch.Tensor, chunk: int = _CHUNK, rows: torch.Tensor | None = None
    ) -> Iterator[torch.Tensor]:
        """Logits (b, H, C) of `features` (n, d), b <= `chunk` images at a time, with the statistics of training.

        Args:
            rows: numbers of the images that are scored; None for all.
        """
        scale = (self.var + EPS).rsqrt()
        for part in features.split(chunk) if rows is None else (features[some] for some in rows.split(chunk)):
            inputs = (part.to(self.weight.device) - self.mean) * scale
            yield torch.addmm(self.bias, inputs, self.weight.T).view(len(part), -1, self.num_classes)

    def head_scores(self, features: torch.Tensor, head: int) -> torch.Tensor:
        """Logits (n, C) of one head, on the CPU."""
        return torch.cat([part[:, head].cpu() for part in self.scores(features)])


def schedule(step: int, total: int, batch_size: int) -> float:
    """What a learning rate is multiplied by: cosine to 0, times batch_size / 256 (paper)."""
    return 0.5 * (1 + math.cos(math.pi * step / total)) * batch_size / 256


def train_heads(
    heads: BatchedHeads,
    features: torch.Tensor,
    targets: torch.Tensor,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    rows: torch.Tensor | None = None,
) -> BatchedHeads:
    """SGD on features (n, d) kept in memory. Every epoch sees every image: batches differ in size by one at most.

    Args:
        rows: numbers of the images to train on, so that a part of them needs no copy; None for all.
    """
    device = heads.weight.device
    features, targets = features.to(device), targets.to(device)
    rows = torch.arange(len(features)) if rows is None else rows
    generator = torch_generator("heads_order", seed)
    count = -(-len(rows) // batch_size)
    for epoch in range(epochs):
        order = rows[torch.randperm(len(rows), generator=generator)].to(device)
        for number, batch in enumerate(order.tensor_split(count)):
            factor = schedule(epoch * count + number, epochs * count, batch_size)
            heads.step(features.index_select(0, batch), targets[batch], factor)
    return heads


def head_values(
    heads: BatchedHeads, features: torch.Tensor, labels: torch.Tensor, rows: torch.Tensor | None = None
) -> tuple[list[float], list[float]]:
    """Accuracy (or macro AUROC, for labels (n, C)) and mean loss of each head on features (n, d).

    Args:
        rows: numbers of the images that count; None for all.
    """
    rows = torch.arange(len(labels)) if rows is None else rows
    if labels.ndim == 2:
        scores = torch.cat([part.cpu() for part in heads.scores(features, rows=rows)])
        truth = labels[rows]
        targets = truth[:, None].expand_as(scores).float()
        losses = functional.binary_cross_entropy_with_logits(scores, targets, reduction="none").mean((0, 2))
        values = [macro_auroc(scores[:, head].numpy(), truth.numpy()) for head in range(scores.shape[1])]
        return values, losses.tolist()
    right = loss = torch.zeros(len(heads.settings), dtype=torch.float64)
    for part, truth in zip(heads.scores(features, rows=rows), labels[rows].split(_CHUNK), strict=True):
        wanted = truth.to(part.device)[:, None].expand(-1, part.shape[1])
        right = right + (part.argmax(2) == wanted).sum(0).cpu()
        loss = loss + functional.cross_entropy(part.transpose(1, 2), wanted, reduction="none").sum(0).double().cpu()
    return (right / len(rows)).tolist(), (loss / len(rows)).tolist()
