# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What surrounds the slices, in three kernels: statistics before them, the terms after them, and the gradient in z.

Shapes: z, x and gradient (V views, B images, D dimension), moments (2, V, D): mean and standard deviation over the
batch; sums (3, programs): the parts of center, scale and invariance; rows (K * V,): the values of the slices. The six
terms are scalars, in the order of VISRegTerms.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


DIMS = 16  # dimensions of a program of the statistics
ROWS = 256  # images it takes at a time, at most
BLOCK = 256  # numbers of a program of the others
LANES = 2048  # numbers that the program of the terms takes at a time


class Weights(NamedTuple):
    """lambda, those of the terms in the regularizer, and the share of the slices that shape is multiplied by."""

    regularization: float
    scale: float
    shape: float
    center: float
    share: float


@triton.jit
def statistics_kernel(
    z, x, moments, sums, batch, dim, views, eps,
    GLOBAL: tl.constexpr, STEPS: tl.constexpr, ROWS: tl.constexpr, DIMS: tl.constexpr,
):  # fmt: skip
    """The moments of DIMS dimensions of one view, x = (z - mean) / (deviation + eps), and three parts of sums.

    The mean is corrected by what is left after it was subtracted, so that x has mean 0 to float32's rounding.
    """
    view = tl.program_id(1).to(tl.int64)
    d = tl.program_id(0) * DIMS + tl.arange(0, DIMS)[None, :]
    row = tl.arange(0, ROWS)[:, None]
    own = view * batch * dim
    total = tl.zeros([ROWS, DIMS], tl.float32)
    for step in range(STEPS):
        start = step * ROWS
        inside = (start + row < batch) & (d < dim)
        total += tl.load(z + own + (start + row) * dim + d, inside, 0.0).to(tl.float32)
    mean = tl.sum(total, axis=0, keep_dims=True) / batch
    left, squares, apart = tl.zeros_like(total), tl.zeros_like(total), tl.zeros_like(total)
    for step in range(STEPS):
        start = step * ROWS
        inside = (start + row < batch) & (d < dim)
        here = (start + row) * dim + d
        value = tl.load(z + own + here, inside, 0.0).to(tl.float32)
        target = tl.zeros([ROWS, DIMS], tl.float32)
        for other in range(GLOBAL):
            target += tl.load(z + tl.cast(other, tl.int64) * batch * dim + here, inside, 0.0).to(tl.float32)
        centered = tl.where(inside, value - mean, 0.0)
        left += centered
        squares += centered * centered
        apart += (value - target / GLOBAL) * (value - target / GLOBAL)
    shift = tl.sum(left, axis=0, keep_dims=True) / batch
    variance = tl.sum(squares, axis=0, keep_dims=True) / batch - shift * shift
    deviation = tl.sqrt(tl.where(variance < 0, 0.0, variance))  # a NaN stays
    mean += shift
    sigma = deviation + eps
    for step in range(STEPS):
        start = step * ROWS
        inside = (start + row < batch) & (d < dim)
        here = own + (start + row) * dim + d
        value = tl.load(z + here, inside, 0.0).to(tl.float32)
        tl.store(x + here, (value - mean) / sigma, inside)
    tl.store(moments + view * dim + d, mean, d < dim)
    tl.store(moments + (views + view) * dim + d, deviation, d < dim)
    programs = tl.num_programs(0) * views
    part = sums + view * tl.num_programs(0) + tl.program_id(0)
    tl.store(part, tl.sum(tl.where(d < dim, mean * mean, 0.0)))
    tl.store(part + programs, tl.sum(tl.where(d < dim, (1 - sigma) * (1 - sigma), 0.0)))
    tl.store(part + 2 * programs, tl.sum(apart))


@triton.jit
def _sum(numbers, count, STEPS: tl.constexpr, LANES: tl.constexpr):
    lane = tl.arange(0, LANES)
    total = tl.zeros([LANES], tl.float32)
    for step in range(STEPS):
        total += tl.load(numbers + step * LANES + lane, step * LANES + lane < count, 0.0)
    return tl.sum(total)


@triton.jit
def terms_kernel(
    sums, rows, partial, slope, to_total, to_invariance, to_center, to_scale, to_shape, to_regularizer,
    programs, count, numbers, views, batch, dim,
    regularization, of_scale, of_shape, of_center, share,
    SPLITS: tl.constexpr, PARTS: tl.constexpr, STEPS: tl.constexpr, LANES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Program 0: the six terms, of sums and rows (count,). Each other: BLOCK numbers of slope, summed over SPLITS."""
    if tl.program_id(0) == 0:
        statistics = views * dim * 1.0
        center = _sum(sums, programs, PARTS, LANES) / statistics
        scale = _sum(sums + programs, programs, PARTS, LANES) / statistics
        invariance = _sum(sums + 2 * programs, programs, PARTS, LANES) / (statistics * batch)
        shape = share * (_sum(rows, count, STEPS, LANES) / (count * 1.0 * batch))
        regularizer = of_scale * scale + of_shape * shape + of_center * center
        tl.store(to_total, regularization * regularizer + (1 - regularization) * invariance)
        tl.store(to_invariance, invariance)
        tl.store(to_center, center)
        tl.store(to_scale, scale)
        tl.store(to_shape, shape)
        tl.store(to_regularizer, regularizer)
    else:
        here = (tl.program_id(0) - 1).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
        total = tl.zeros([BLOCK], tl.float32)
        for split in range(SPLITS):
            total += tl.load(partial + tl.cast(split, tl.int64) * numbers + here, here < numbers, 0.0)
        tl.store(slope + here, total, here < numbers)


@triton.jit
def _scalar(pointer):
    if pointer is None:
        value = 0.0
    else:
        value = tl.load(pointer).to(tl.float32)
    return value


@triton.jit
def gradient_kernel(
    z, moments, slope, total, invariance, center, scale, shape, regularizer, gradient,
    numbers, batch, dim, slices, eps,
    regularization, of_scale, of_shape, of_center, share,
    VIEWS: tl.constexpr, GLOBAL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient in z, from those in the six terms, for BLOCK pairs of image and dimension in all views.

    slope is half the gradient in x of the sum over rows. What it would be less its mean over the batch is not needed:
    that mean is 0, because the residuals of a row sum to 0, as its projections and the quantiles do.
    """
    of_total = _scalar(total)
    of_regularizer = _scalar(regularizer) + regularization * of_total
    each = 2 / (VIEWS * 1.0 * numbers)
    to_invariance = (_scalar(invariance) + (1 - regularization) * of_total) * each
    to_center = (_scalar(center) + of_center * of_regularizer) * each
    to_scale = (_scalar(scale) + of_scale * of_regularizer) * each
    to_shape = (_scalar(shape) + of_shape * of_regularizer) * share * 2 / (VIEWS * 1.0 * batch * slices)
    here = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside, d = here < numbers, here % dim
    target, apart = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for view in range(GLOBAL):
        target += tl.load(z + tl.cast(view, tl.int64) * numbers + here, inside, 0.0).to(tl.float32)
    target /= GLOBAL
    for view in range(GLOBAL, VIEWS):  # what the global views are apart sums to 0
        apart += tl.load(z + tl.cast(view, tl.int64) * numbers + here, inside, 0.0).to(tl.float32) - target
    for view in range(VIEWS):
        own = tl.cast(view, tl.int64) * numbers + here
        value = tl.load(z + own, inside, 0.0).to(tl.float32)
        mean = tl.load(moments + view * dim + d, inside, 0.0)
        deviation = tl.load(moments + (VIEWS + view) * dim + d, inside, 1.0)
        sigma = deviation + eps
        direction = tl.where(deviation == 0, 0.0, (value - mean) / deviation)
        change = to_center * mean - to_scale * (1 - sigma) * direction
        change += to_shape * tl.load(slope + own, inside, 0.0) / sigma
        change += to_invariance * (value - target - tl.where(view < GLOBAL, apart / GLOBAL, 0.0))
        tl.store(gradient + own, change.to(gradient.dtype.element_ty), inside)


def standardize(z: Tensor, num_global: int, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(x, moments, sums) of a contiguous z."""
    views, batch, dim = z.shape
    x = torch.empty(z.shape, dtype=torch.float32, device=z.device)
    tiles = triton.cdiv(dim, DIMS)
    moments, sums = x.new_empty(2, views, dim), x.new_empty(3, views * tiles)
    rows = min(ROWS, triton.next_power_of_2(batch))
    statistics_kernel[(tiles, views)](
        z, x, moments, sums, batch, dim, views, eps,
        GLOBAL=num_global, STEPS=triton.cdiv(batch, rows), ROWS=rows, DIMS=DIMS, num_warps=8 if rows >= 128 else 4,
    )  # fmt: skip
    return x, moments, sums


def combine(sums: Tensor, rows: Tensor, partial: Tensor | None, x: Tensor, weights: Weights) -> list[Tensor]:
    """The six terms; and x (V, B, D), whose values are no longer needed, becomes the sum of partial (S, V, B, D)."""
    views, batch, dim = x.shape
    terms, splits = [x.new_empty(()) for _ in range(6)], 0 if partial is None else len(partial)
    programs = triton.cdiv(x.numel(), BLOCK) if splits else 0
    terms_kernel[(1 + programs,)](
        sums, rows, x if partial is None else partial, x, *terms,
        sums.shape[1], len(rows), x.numel(), views, batch, dim, *weights,
        SPLITS=splits, PARTS=triton.cdiv(sums.shape[1], LANES), STEPS=triton.cdiv(len(rows), LANES), LANES=LANES,
        BLOCK=BLOCK, num_warps=8,
    )  # fmt: skip
    return terms


def gradient_in_z(
    upstream: Sequence[Tensor | None], z: Tensor, moments: Tensor, slope: Tensor, num_global: int, slices: int,
    eps: float, weights: Weights,
) -> Tensor:  # fmt: skip
    """(V, B, D) in z's type, from the gradients in the six terms; slope is what `combine` wrote."""
    views, batch, dim = z.shape
    gradient, numbers = torch.empty_like(z), batch * dim
    block = 128
    gradient_kernel[(triton.cdiv(numbers, block),)](
        z, moments, slope, *upstream, gradient, numbers, batch, dim, slices, eps, *weights,
        VIEWS=views, GLOBAL=num_global, BLOCK=block, num_warps=2,
    )  # fmt: skip
    return gradient
