# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Chunks of slices through product, statistic and product: three launches a chunk, no synchronization.

Shapes: x (V views, B images, D dimension), directions (D, K slices), p (V, K of a chunk, B).
"""

import torch
from torch import Tensor

from ..statistic import RowKernel
from .products import collect, empty_partial, project


CHUNK = 1 << 23  # numbers: 32 MB, which stay in the L2 cache of an H100
ROUND = 128  # slices: no block of the products is cut


def accumulate(
    x: Tensor, directions: Tensor, statistic: RowKernel, need_gradient: bool, chunk: int = 0
) -> tuple[Tensor, Tensor]:
    """As in the folder's `accumulate`."""
    with torch.cuda.device_of(x):
        sums, partial = run_chunks(x.contiguous(), directions, statistic, need_gradient, chunk)
    return sums.sum(), x.new_empty(0) if partial is None else partial.sum(0)


def run_chunks(
    x: Tensor, directions: Tensor, statistic: RowKernel, need_gradient: bool, chunk: int = 0
) -> tuple[Tensor, Tensor | None]:
    """(values of all rows: (K * V,), the gradient in x as parts to be summed: (S, V, B, D), or None); x contiguous."""
    views, batch, _ = x.shape
    slices = directions.shape[1]
    chunk = chunk or slices_of(views * batch, slices)
    sums = x.new_empty(slices * views)
    buffer = x.new_empty(views * min(chunk, slices) * batch)
    partial = empty_partial(x, min(chunk, slices)) if need_gradient else None
    for start in range(0, slices, chunk):
        columns = directions[:, start : start + chunk]
        count = columns.shape[1]
        p = buffer[: views * count * batch].view(views, count, batch)
        project(x, columns, p)
        statistic(p.flatten(0, 1), sums[start * views : (start + count) * views], need_gradient)
        if partial is not None:
            collect(p, columns, partial, start > 0)
    return sums, partial


def slices_of(numbers: int, slices: int) -> int:
    """Slices in a chunk, at `numbers` a slice: chunks of about one size, none above CHUNK but for the rounding."""
    chunks = -(-slices * numbers // CHUNK)
    even = -(-slices // chunks)
    return min(slices, -(-even // ROUND) * ROUND)
