# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Many linear classifiers that differ in learning rate and weight decay, trained together as one matrix product.

Each is BN and Linear, trained by SGD with momentum under a cosine (method, section 5). The statistics of BN depend on
the features only, so all heads share them; logits of all heads are one product, and so is the gradient, which is
written out because it is that of a softmax. BN has an affine part of its own where the release is followed: what it
scales and shifts is folded into the weights of the product.

n images, B of a batch, d features, H heads, C classes.
"""

import math
from collections.abc import Iterator
from itertools import product

import torch
from torch.nn import functional

from ..progress import tracked
from ..seeding import torch_generator
from .metrics import macro_auroc


LEARNING_RATES = tuple(float(f"{1e-4 * 5000 ** (step / 12):.3g}") for step in range(13))  # 1e-4 to 0.5 (paper)
MOMENTUM = 0.9  # paper
EPS = 1e-6
PYTORCH_EPS = 1e-5
NORMS = ("plain", "affine", "none")
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
        norm: `plain`: BN without an affine part, which the linear layer has; `affine`: PyTorch's own, as the release;
            `none`: no BN, as DINOv2.

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
        norm: str = "plain",
    ):
        self.norm, self.eps = norm, PYTORCH_EPS if norm == "affine" else EPS
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
        if norm == "affine":
            self.gain, self.shift = torch.ones(heads, width, device=device), torch.zeros(heads, width, device=device)
            self.gain_momentum, self.shift_momentum = torch.zeros_like(self.gain), torch.zeros_like(self.shift)

    @torch.no_grad()
    def step(self, features: torch.Tensor, targets: torch.Tensor, factor: float) -> None:
        """One update of every head. `features`: (B, d); `targets`: (B,) classes or (B, C) of 0 and 1; `factor`: what
        the schedule and the batch size make of the learning rates."""
        # torch.batch_norm is one pass where var_mean and a difference are four, and it keeps the running statistics.
        statistics = (self.mean, self.var, len(features) > 1, _BN_MOMENTUM, self.eps, False)
        inputs = features if self.norm == "none" else torch.batch_norm(features, None, None, *statistics)
        weight, bias = self.folded()
        gradient = self.logit_gradient(torch.addmm(bias, inputs, weight.T), targets)
        if self.norm == "affine":
            self.affine_step(gradient.T @ inputs, gradient.sum(0), factor)
            return
        if self.decaying:
            self.weight_momentum.mul_(MOMENTUM).addcmul_(self.weight, self.decays[:, None]).addmm_(gradient.T, inputs)
            self.bias_momentum.mul_(MOMENTUM).addcmul_(self.bias, self.decays).add_(gradient.sum(0))
        else:
            self.weight_momentum.addmm_(gradient.T, inputs, beta=MOMENTUM)
            self.bias_momentum.mul_(MOMENTUM).add_(gradient.sum(0))
        self.weight.addcmul_(self.weight_momentum, self.rates[:, None], value=-factor)
        self.bias.addcmul_(self.bias_momentum, self.rates, value=-factor)

    def folded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight (H * C, d) and bias (H * C,) of one product on what BN gives without its affine part."""
        if self.norm != "affine":
            return self.weight, self.bias
        weight = self.weight.unflatten(0, (-1, self.num_classes))
        return (weight * self.gain[:, None]).flatten(0, 1), self.bias + (weight @ self.shift[:, :, None]).flatten()

    def affine_step(self, product: torch.Tensor, total: torch.Tensor, factor: float) -> None:
        """The update where BN has a gain and a shift.

        Args:
            product, total: gradients (H * C, d) and (H * C,) of the folded weight and bias.
        """
        heads, classes = len(self.gain), self.num_classes
        weight, product = (matrix.view(heads, classes, -1) for matrix in (self.weight, product))
        by_class = total.view(heads, classes, 1)
        gradients = {
            "weight": (product * self.gain[:, None] + by_class * self.shift[:, None]).flatten(0, 1),
            "bias": total,
            "gain": (weight * product).sum(1),
            "shift": (weight * by_class).sum(1),
        }
        for name, gradient in gradients.items():
            value, momentum = getattr(self, name), getattr(self, f"{name}_momentum")
            rates, decays = (row if len(row) == len(value) else row[::classes] for row in (self.rates, self.decays))
            if value.ndim == 2:
                rates, decays = rates[:, None], decays[:, None]
            momentum.mul_(MOMENTUM).add_(gradient).addcmul_(value, decays)
            value.addcmul_(momentum, rates, value=-factor)

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
        scale = (self.var + self.eps).rsqrt()
        weight, bias = self.folded()
        for part in features.split(chunk) if rows is None else (features[some] for some in rows.split(chunk)):
            inputs = part.to(self.weight.device)
            if self.norm != "none":
                inputs = (inputs - self.mean) * scale
            yield torch.addmm(bias, inputs, weight.T).view(len(part), -1, self.num_classes)

    def head_scores(self, features: torch.Tensor, head: int) -> torch.Tensor:
        """Logits (n, C) of one head, on the CPU."""
        return torch.cat([part[:, head].cpu() for part in self.scores(features)])


def schedule(step: int, total: int, batch_size: int) -> float:
    """What a learning rate is multiplied by: cosine to 0, times batch_size / 256 (paper)."""
    return 0.5 * (1 + math.cos(math.pi * step / total)) * batch_size / 256


def training_batches(
    rows: torch.Tensor, epochs: int, batch_size: int, seed: int = 0, drop_last: bool = False, each_epoch: bool = False
) -> Iterator[tuple[int, torch.Tensor, float]]:
    """(epoch, numbers of the images, factor of the learning rates) of every update.

    Every epoch sees every image: batches differ in size by one at most. Else, as in the release:

    Args:
        drop_last: batches of exactly `batch_size`, without what is left over; none where there are fewer images.
        each_epoch: the cosine steps once an epoch, not with every update.
    """
    generator = torch_generator("heads_order", seed)
    count = len(rows) // batch_size if drop_last else -(-len(rows) // batch_size)
    for epoch in tracked(range(epochs), epochs, "training heads", "epochs"):
        order = rows[torch.randperm(len(rows), generator=generator)]
        if count == 0:
            continue
        batches = order[: count * batch_size].split(batch_size) if drop_last else order.tensor_split(count)
        for number, batch in enumerate(batches):
            done = (epoch, epochs) if each_epoch else (epoch * count + number, epochs * count)
            yield epoch, batch, schedule(*done, batch_size)


def train_heads(
    heads: BatchedHeads,
    features: torch.Tensor,
    targets: torch.Tensor,
    epochs: int,
    batch_size: int,
    seed: int = 0,
    rows: torch.Tensor | None = None,
    drop_last: bool = False,
    each_epoch: bool = False,
) -> BatchedHeads:
    """SGD on features (n, d) kept in memory, in the batches of `training_batches`.

    Args:
        rows: numbers of the images to train on, so that a part of them needs no copy; None for all.
    """
    device = heads.weight.device
    features, targets = features.to(device), targets.to(device)
    rows = torch.arange(len(features)) if rows is None else rows
    for _epoch, batch, factor in training_batches(rows, epochs, batch_size, seed, drop_last, each_epoch):
        batch = batch.to(device)
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
        loss = loss + functional.cross_entropy(part.transpose(1, 2), wanted, reduction="none").sum(0).cpu().double()
    return (right / len(rows)).tolist(), (loss / len(rows)).tolist()
