# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The sliced distance to the standard Gaussian: sort projections, compare with quantiles, put residuals back.

Shapes: x (V views, B images, D dimension), directions (D, K slices), p (rows: one a view and slice, B).
"""

import functools

import numpy as np
import torch
from torch import Tensor

from .kernel import OneGradient, accumulate
from .slices import gaussian_quantiles


def sliced_gaussian_distance(x: Tensor, directions: Tensor, chunk: int = 0) -> Tensor:
    """Mean over (v, b, k) of (sorted p - Gaussian quantiles)^2, p = x W: a scalar, differentiable once, in x only.

    Args:
        x: (V, B, D), float32 or float64.
        directions: (D, K).
        chunk: slices taken at a time, 0 to choose by size; it does not change the result.
    """
    wanted = x.requires_grad and torch.is_grad_enabled()
    value, gradient = sliced_distance(x.detach(), directions.detach().to(x.dtype), wanted, chunk)
    return OneGradient.apply(x, value, gradient) if wanted else value


@torch.library.custom_op("visreg::sliced_distance", mutates_args=())
def sliced_distance(x: Tensor, directions: Tensor, need_gradient: bool, chunk: int) -> tuple[Tensor, Tensor]:
    """Value and gradient; an operator, so that torch.compile takes it as it is."""
    quantiles = gaussian_quantiles(x.shape[1], x.device, x.dtype)
    statistic = functools.partial(_ResidualsOnCPU if x.device.type == "cpu" else _ResidualsOnDevice, quantiles)
    value, gradient = accumulate(x, directions, statistic, need_gradient, chunk)
    count = x.shape[0] * x.shape[1] * directions.shape[1]
    return value / count, gradient.mul_(2 / count)


@sliced_distance.register_fake
def _(x: Tensor, directions: Tensor, need_gradient: bool, chunk: int) -> tuple[Tensor, Tensor]:
    return x.new_empty(()), torch.empty_like(x) if need_gradient else x.new_empty(0)


class _ResidualsOnDevice:
    """The statistic by torch's sort."""

    def __init__(self, quantiles: Tensor, rows: int):
        self.quantiles = quantiles

    def __call__(self, p: Tensor, need_slope: bool) -> tuple[Tensor, Tensor | None]:
        ordered, order = torch.sort(p, dim=-1)
        residual = ordered.sub_(self.quantiles)
        value = residual.square().sum()
        return value, p.scatter_(-1, order, residual) if need_slope else None


class _ResidualsOnCPU:
    """The statistic by NumPy's vectorised sorts, in buffers that are allocated once a thread (page faults cost).

    The residual of a projection is its distance to the quantile of its rank, so the quantiles are put into batch order
    and the projections are never moved.
    """

    def __init__(self, quantiles: Tensor, rows: int):
        self.quantiles = quantiles
        self.rank_order = PackedOrder(rows, len(quantiles)) if quantiles.dtype == torch.float32 else _argsort
        self.target = quantiles.new_empty(rows, len(quantiles))

    def __call__(self, p: Tensor, need_slope: bool) -> tuple[float, Tensor | None]:
        if need_slope:
            order, quantiles = self.rank_order(p), self.quantiles.expand_as(p)
            residual = p.sub_(self.target[: len(p)].scatter_(-1, order, quantiles))
        else:
            p.numpy().sort(axis=-1)
            residual = p.sub_(self.quantiles)
        flat = residual.view(-1)
        return torch.dot(flat, flat).item(), residual if need_slope else None


def _argsort(p: Tensor) -> Tensor:
    return torch.from_numpy(np.argsort(p.numpy(), axis=-1))


class PackedOrder:
    """argsort of each row of a float32 p (rows, B) on the CPU, in a third of NumPy's time; reuses its buffer.

    A float32 as a float64 leaves the last 29 bits of the mantissa zero. The position goes there, which can change the
    order of equal values only; one sort of plain numbers, and the last bits are the permutation. NaN and infinite
    values lose theirs: what they give is no permutation, but the statistic is not finite then, and says so.
    """

    def __init__(self, rows: int, batch: int):
        self.positions = torch.arange(batch)
        self.mask = (1 << (batch - 1).bit_length()) - 1
        self.keys = torch.empty(rows, batch, dtype=torch.float64)

    def __call__(self, p: Tensor) -> Tensor:
        """order (rows, B), int64; valid until the next call."""
        keys = self.keys[: len(p)].copy_(p)
        bits = keys.view(torch.int64)
        bits.bitwise_or_(self.positions)
        keys.numpy().sort(axis=-1)
        return bits.bitwise_and_(self.mask)
