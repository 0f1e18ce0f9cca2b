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


LARGEST_PACKED = 1 << 12  # images: beyond it too few bits are left for the value, and argsort wins
SWAP_ROUNDS = 16


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
    statistic = functools.partial(_residuals_cpu if x.device.type == "cpu" else _residuals_device, quantiles)
    value, gradient = accumulate(x, directions, statistic, need_gradient, chunk)
    count = x.shape[0] * x.shape[1] * directions.shape[1]
    return value / count, gradient.mul_(2 / count)


@sliced_distance.register_fake
def _(x: Tensor, directions: Tensor, need_gradient: bool, chunk: int) -> tuple[Tensor, Tensor]:
    return x.new_empty(()), torch.empty_like(x) if need_gradient else x.new_empty(0)


def _residuals_device(quantiles: Tensor, p: Tensor, need_slope: bool) -> tuple[Tensor, Tensor | None]:
    ordered, order = torch.sort(p, dim=-1)
    residual = ordered.sub_(quantiles)
    value = residual.square().sum()
    return value, p.scatter_(-1, order, residual) if need_slope else None


def _residuals_cpu(quantiles: Tensor, p: Tensor, need_slope: bool) -> tuple[float, Tensor | None]:
    """As on the device, with NumPy's vectorised sorts in place of torch.sort."""
    if need_slope:
        order, ordered = sort_rows(p)
    else:
        ordered = torch.from_numpy(np.sort(p.numpy(), axis=-1))
    residual = ordered.sub_(quantiles)
    flat = residual.view(-1)
    return torch.dot(flat, flat).item(), p.scatter_(-1, order, residual) if need_slope else None


def sort_rows(p: Tensor) -> tuple[Tensor, Tensor]:
    """(order, p in this order) of each row of p (rows, B) on the CPU.

    An argsort costs ten times a sort of 32-bit integers. So float32 rows are sorted as integers with the value, as a
    fixed-point number, in the upper bits and the position in the lower ones; what rounding to fixed point left in the
    wrong order, about one neighbouring pair in 10^4 at B = 512, is put right afterwards: the result is exact.
    """
    batch = p.shape[1]
    if p.dtype != torch.float32 or batch > LARGEST_PACKED:
        order = torch.from_numpy(np.argsort(p.numpy(), axis=-1))
        return order, p.gather(-1, order)
    bits = (batch - 1).bit_length()
    low, high = torch.aminmax(p)
    largest = max(-low.item(), high.item(), 1e-30)
    ordered = p * (((1 << (31 - bits)) - 2) / largest)
    keys = ordered.int().mul_(1 << bits).add_(torch.arange(batch, dtype=torch.int32))
    keys.numpy().sort(axis=-1)
    order = keys.bitwise_and_((1 << bits) - 1).long()
    torch.gather(p, -1, order, out=ordered)
    _settle(order.numpy(), ordered.numpy())
    return order, ordered


def _settle(order: np.ndarray, ordered: np.ndarray) -> None:
    """Swap neighbours of `ordered` (rows, B), nearly sorted, until each row is; `order` follows."""
    for _ in range(SWAP_ROUNDS):
        wrong = ordered[:, 1:] < ordered[:, :-1]
        if not wrong.any():
            return
        wrong[:, 1:] &= ~wrong[:, :-1]  # pairs that overlap wait for the next round
        rows, left = np.nonzero(wrong)
        for array in (ordered, order):
            array[rows, left], array[rows, left + 1] = array[rows, left + 1], array[rows, left]
    rows = np.flatnonzero((ordered[:, 1:] < ordered[:, :-1]).any(axis=1))
    again = np.argsort(ordered[rows], axis=-1)
    for array in (ordered, order):
        array[rows] = np.take_along_axis(array[rows], again, axis=-1)
