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
    """The statistic by NumPy's vectorised sorts, in buffers that are allocated once a thread (page faults cost)."""

    def __init__(self, quantiles: Tensor, rows: int):
        self.quantiles = quantiles
        self.sort = PackedSort(rows, len(quantiles)) if _can_pack(quantiles) else _argsort

    def __call__(self, p: Tensor, need_slope: bool) -> tuple[float, Tensor | None]:
        if need_slope:
            order, ordered = self.sort(p)
        else:
            ordered = p
            ordered.numpy().sort(axis=-1)
        residual = ordered.sub_(self.quantiles)
        flat = residual.view(-1)
        value = torch.dot(flat, flat).item()
        return value, p.scatter_(-1, order, residual) if need_slope else None


def _can_pack(quantiles: Tensor) -> bool:
    return quantiles.dtype == torch.float32 and len(quantiles) <= LARGEST_PACKED


def _argsort(p: Tensor) -> tuple[Tensor, Tensor]:
    order = torch.from_numpy(np.argsort(p.numpy(), axis=-1))
    return order, p.gather(-1, order)


class PackedSort:
    """sort(p) -> (order, p in this order) of each row of a float32 p (rows, B) on the CPU; reuses its buffers.

    An argsort costs ten times a sort of 32-bit integers. So the rows are sorted as integers with the value, as a
    fixed-point number, in the upper bits and the position in the lower ones; what rounding to fixed point left in the
    wrong order, about one neighbouring pair in 10^4 at B = 512, is put right afterwards: the result is exact.
    """

    def __init__(self, rows: int, batch: int):
        self.bits = (batch - 1).bit_length()
        self.positions = torch.arange(batch, dtype=torch.int32)
        self.ordered = torch.empty(rows, batch)
        self.keys = torch.empty(rows, batch, dtype=torch.int32)
        self.order = torch.empty(rows, batch, dtype=torch.int64)
        self.wrong = np.zeros((rows, batch), dtype=bool)

    def __call__(self, p: Tensor) -> tuple[Tensor, Tensor]:
        rows = len(p)
        ordered, keys, order = self.ordered[:rows], self.keys[:rows], self.order[:rows]
        low, high = torch.aminmax(p)
        largest = max(-low.item(), high.item(), 1e-30)
        torch.mul(p, ((1 << (31 - self.bits)) - 2) / largest, out=ordered)
        torch.add(self.positions, keys.copy_(ordered), alpha=1 << self.bits, out=keys)
        keys.numpy().sort(axis=-1)
        order.copy_(keys.bitwise_and_((1 << self.bits) - 1))
        torch.gather(p, -1, order, out=ordered)
        _settle(order.numpy(), ordered.numpy(), self.wrong[:rows])
        return order, ordered


def _settle(order: np.ndarray, ordered: np.ndarray, wrong: np.ndarray) -> None:
    """Swap neighbours of `ordered` (rows, B), nearly sorted, until each row is; `order` follows.

    `wrong` is a buffer of this shape whose last column is False: where a value is above its right neighbour.
    """
    np.less(ordered[:, 1:], ordered[:, :-1], out=wrong[:, :-1])
    left, batch = np.flatnonzero(wrong), ordered.shape[1]
    values, places = ordered.reshape(-1), order.reshape(-1)
    for _ in range(SWAP_ROUNDS if len(left) < values.size // 16 else 0):
        if len(left) == 0:
            return
        apart = left[np.diff(left, prepend=-2) > 1]  # pairs that overlap wait for a later round
        for array in (values, places):
            array[apart], array[apart + 1] = array[apart + 1], array[apart]
        near = np.sort(np.concatenate([left - 1, left, left + 1]))
        near = near[(np.diff(near, prepend=-2) > 0) & (near % batch != batch - 1)]
        left = near[values[near + 1] < values[near]]
    rows = np.unique(left // batch)
    again = np.argsort(ordered[rows], axis=-1)
    for array in (ordered, order):
        array[rows] = np.take_along_axis(array[rows], again, axis=-1)
