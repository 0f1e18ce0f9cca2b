# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The two products on tensor cores, with float32's accuracy: each factor in parts, the products of parts in float32.

Shapes: x (V views, B images, D dimension), directions (D, K slices of a chunk), p and slope (V, K, B),
partial (S splits of K, V, B, D).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


PROJECT: dict[str, Any] = {"SLICES": 128, "IMAGES": 64, "DIMS": 32, "num_warps": 8, "num_stages": 3}
COLLECT: dict[str, Any] = {"IMAGES": 64, "DIMS": 64, "SLICES": 32, "num_warps": 4, "num_stages": 3}
PROGRAMS = 512  # enough for every GPU to be busy; K is split until there are as many


@triton.jit
def _parts(a):
    """(a to the nearest number that tensor cores take whole, the rest); they cut the rest to 11 bits of its own."""
    big = ((a.to(tl.int32, bitcast=True) + 0x1000) & -0x2000).to(tl.float32, bitcast=True)
    return big, a - big


@triton.jit
def _add_product(total, a, b):
    """total + a b in three products of parts: errors of some 2^-21 a product.

    Tensor cores cut off what they add to a sum, so a step has a sum of its own and is added by the others, which
    round. Triton's own "tf32x3" does that, too, and looks for NaN in between, which is a third of the loop's
    arithmetic. Here what is not finite gives NaN.
    """
    a_big, a_rest = _parts(a)
    b_big, b_rest = _parts(b)
    step = tl.dot(a_rest, b_big, input_precision="tf32")
    step = tl.dot(a_big, b_rest, step, input_precision="tf32")
    return total + tl.dot(a_big, b_big, step, input_precision="tf32")


@triton.jit
def _project(
    x, directions, p, batch, dim, slices, stride_d, stride_k,
    SLICES: tl.constexpr, IMAGES: tl.constexpr, DIMS: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    view = tl.program_id(2).to(tl.int64)
    k = tl.program_id(0) * SLICES + tl.arange(0, SLICES)
    b = tl.program_id(1) * IMAGES + tl.arange(0, IMAGES)
    x += view * batch * dim
    total = tl.zeros([SLICES, IMAGES], tl.float32)
    for step in range(STEPS):
        d = step * DIMS + tl.arange(0, DIMS)
        inside = (d < dim)[:, None]
        w = tl.load(directions + d[:, None] * stride_d + k[None, :] * stride_k, inside & (k < slices)[None, :], 0.0)
        images = tl.load(x + b[:, None] * dim + d[None, :], (b < batch)[:, None] & (d < dim)[None, :], 0.0)
        total = _add_product(total, tl.trans(w), tl.trans(images))
    p += view * slices * batch
    tl.store(p + k[:, None] * batch + b[None, :], total, (k < slices)[:, None] & (b < batch)[None, :])


@triton.jit
def _collect(
    slope, directions, partial, batch, dim, slices, stride_d, stride_k, views,
    IMAGES: tl.constexpr, DIMS: tl.constexpr, SLICES: tl.constexpr, SPLITS: tl.constexpr, ADD: tl.constexpr,
    STEPS: tl.constexpr,
):  # fmt: skip
    view = (tl.program_id(2) // SPLITS).to(tl.int64)
    split = tl.program_id(2) % SPLITS
    b = tl.program_id(0) * IMAGES + tl.arange(0, IMAGES)
    d = tl.program_id(1) * DIMS + tl.arange(0, DIMS)
    inside = (b < batch)[:, None] & (d < dim)[None, :]
    slope += view * slices * batch
    partial += (split * views + view) * batch * dim + b[:, None] * dim + d[None, :]
    total = tl.zeros([IMAGES, DIMS], tl.float32)
    if ADD:
        total = tl.load(partial, inside, 0.0)
    for step in range(STEPS):
        k = (step * SPLITS + split) * SLICES + tl.arange(0, SLICES)
        rows = tl.load(slope + k[:, None] * batch + b[None, :], (k < slices)[:, None] & (b < batch)[None, :], 0.0)
        w = tl.load(
            directions + d[:, None] * stride_d + k[None, :] * stride_k,
            (d < dim)[:, None] & (k < slices)[None, :],
            0.0,
        )
        total = _add_product(total, tl.trans(rows), tl.trans(w))
    tl.store(partial, total, inside)


def project(x: Tensor, directions: Tensor, p: Tensor) -> None:
    """p (V, K, B) = W' x', x contiguous."""
    views, batch, dim = x.shape
    slices = directions.shape[1]
    grid = (triton.cdiv(slices, PROJECT["SLICES"]), triton.cdiv(batch, PROJECT["IMAGES"]), views)
    _project[grid](
        x, directions, p, batch, dim, slices, *directions.stride(),
        STEPS=triton.cdiv(dim, PROJECT["DIMS"]), **PROJECT,
    )  # fmt: skip


def splits_of(views: int, batch: int, dim: int, slices: int) -> int:
    """S: in how many parts the sum over K is taken, so that there is a program for each multiprocessor and more."""
    tiles = views * triton.cdiv(batch, COLLECT["IMAGES"]) * triton.cdiv(dim, COLLECT["DIMS"])
    wanted = triton.next_power_of_2(triton.cdiv(PROGRAMS, tiles))
    return max(1, min(wanted, 16, triton.cdiv(slices, COLLECT["SLICES"])))


def collect(slope: Tensor, directions: Tensor, partial: Tensor, add: bool) -> None:
    """partial (S, V, B, D), or what is added to it: slope' W', in S parts of K."""
    splits, views, batch, dim = partial.shape
    slices = directions.shape[1]
    grid = (triton.cdiv(batch, COLLECT["IMAGES"]), triton.cdiv(dim, COLLECT["DIMS"]), views * splits)
    _collect[grid](
        slope, directions, partial, batch, dim, slices, *directions.stride(), views,
        SPLITS=splits, ADD=add, STEPS=triton.cdiv(slices, splits * COLLECT["SLICES"]), **COLLECT,
    )  # fmt: skip


def empty_partial(x: Tensor, slices: int) -> Tensor:
    """(S, V, B, D) for `collect`, to be written first."""
    views, batch, dim = x.shape
    return torch.empty(splits_of(views, batch, dim, slices), *x.shape, dtype=x.dtype, device=x.device)
