# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One kernel for the residuals: rank, residual and sum of squares of each row, in registers.

Shapes: p (rows, B images), quantiles (B,), sums (rows,).
"""

import triton
import triton.language as tl


@triton.jit
def _exchange(keys, upper, ascending, APART: tl.constexpr):
    """Each pair of keys APART lanes away in order, ascending or not; upper: whether a lane is the second of its pair.

    The other key of a pair is their sum less one's own: a shuffle on the GPU, and exact in integers that wrap around.
    """
    SHAPE: tl.constexpr = keys.shape
    pairs = tl.reshape(keys, [keys.numel // (2 * APART), 2, APART])
    other = tl.reshape(tl.sum(pairs, axis=1, keep_dims=True) - pairs, SHAPE)
    return tl.where((keys > other) == (upper == ascending), keys, other)


@triton.jit
def _sorted_rows(keys, lane, BITS: tl.constexpr):
    """Each row of the keys, (ROWS, 2^BITS) and all different, in ascending order: a bitonic sort.

    tl.sort does the same, but the interpreter takes a second for a row.
    """
    for stage in tl.static_range(1, BITS + 1):
        ascending = (lane & (1 << stage)) == 0
        for step in tl.static_range(stage):
            keys = _exchange(keys, (lane & (1 << (stage - 1 - step))) != 0, ascending, 1 << (stage - 1 - step))
    return keys


@triton.jit
def residuals_kernel(
    p, quantiles, sums, rows, batch,
    SIZE: tl.constexpr, BITS: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr, SLOPE: tl.constexpr,
):  # fmt: skip
    """p becomes sorted p minus quantiles, each at its place before the sort, if SLOPE; sums are those of its squares.

    SIZE = 2^BITS is B rounded up. A key holds the value and, in its last BITS, the position, so that whatever the
    values are, NaN included, the sorted positions are a permutation.

    WIDE: keys of 64 bits, with every bit of the value: the order is exact. Else keys of 32 bits, with the value as a
    number of 32 - BITS bits between the least and the largest of its row: values closer than 2^(BITS - 32) of that
    range may change places. Residuals are taken of the values themselves either way.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    lane = tl.arange(0, SIZE)[None, :]
    inside = (row < rows) & (lane < batch)
    start = p + row * batch
    values = tl.load(start + lane, mask=inside, other=0.0)
    if WIDE:
        bits = values.to(tl.int32, bitcast=True)
        whole = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)  # ordered as the floats are
        keys = (tl.where(inside, whole, 0x7FFFFFFF) << 32) | lane
    else:
        LAST: tl.constexpr = 2 ** (32 - BITS) - 1
        HALF: tl.constexpr = 2 ** (31 - BITS)
        least = tl.min(tl.where(inside, values, float("inf")), axis=1)[:, None]
        span = tl.max(tl.where(inside, values, float("-inf")), axis=1)[:, None] - least
        scale = tl.where(span > 0, tl.minimum(LAST / span, 3e38), 0.0)
        level = tl.minimum(tl.maximum((values - least) * scale, 0.0), LAST * 1.0)
        whole = tl.minimum(level.to(tl.int64), LAST).to(tl.int32) - HALF
        keys = (tl.where(inside, whole, HALF - 1) << BITS) | lane
    position = (_sorted_rows(keys, lane, BITS) & (SIZE - 1)).to(tl.int32)
    ordered = tl.load(start + position, mask=inside, other=0.0)
    residual = tl.where(inside, ordered - tl.load(quantiles + lane, mask=lane < batch, other=0.0), 0.0)
    if SLOPE:
        tl.debug_barrier()  # another warp of this row may still read what this one is to overwrite
        tl.store(start + position, residual, mask=inside)
    total = tl.sum(residual * residual, axis=1)[:, None]
    tl.store(sums + row, total, mask=row < rows)
