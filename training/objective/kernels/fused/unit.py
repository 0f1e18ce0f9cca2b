# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One kernel that makes columns as long as 1: directions (D dimension, K slices)."""

import torch
import triton
import triton.language as tl
from torch import Tensor


COLUMNS, ROWS = 32, 64


@triton.jit
def _unit(directions, dim, slices, tiny, STEPS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    k = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    row = tl.arange(0, ROWS)[:, None]
    squares = tl.zeros([ROWS, COLUMNS], tl.float32)
    for step in range(STEPS):
        here = (step * ROWS + row).to(tl.int64) * slices + k
        value = tl.load(directions + here, (step * ROWS + row < dim) & (k < slices), 0.0)
        squares += value * value
    length = tl.maximum(tl.sqrt(tl.sum(squares, axis=0, keep_dims=True)), tiny)
    for step in range(STEPS):
        here = (step * ROWS + row).to(tl.int64) * slices + k
        inside = (step * ROWS + row < dim) & (k < slices)
        tl.store(directions + here, tl.load(directions + here, inside, 0.0) / length, inside)


def make_unit(directions: Tensor) -> Tensor:
    """The columns of a contiguous float32 (D, K), divided by their lengths in place."""
    dim, slices = directions.shape
    with torch.cuda.device_of(directions):
        _unit[(triton.cdiv(slices, COLUMNS),)](
            directions, dim, slices, torch.finfo(torch.float32).tiny,
            STEPS=triton.cdiv(dim, ROWS), ROWS=ROWS, COLUMNS=COLUMNS,
        )  # fmt: skip
    return directions
