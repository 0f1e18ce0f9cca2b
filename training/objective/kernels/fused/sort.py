# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One kernel for the residuals: rank, residual and sum of squares of each row, in registers.

Shapes: p (rows, B images), quantiles (B,), sums (rows,).
"""

import triton
import triton.language as tl


@triton.jit
def _partners(keys, APART: tl.constexpr):
    """Of each pair of keys that are APART lanes apart the other one.

    It is their sum less one's own: a shuffle on the GPU, and exact in integers that wrap around.
    """
    SHAPE: tl.constexpr = keys.shape
    pairs = tl.reshape(keys, [keys.numel // (2 * APART), 2, APART])
    return tl.reshape(tl.sum(pairs, axis=1, keep_dims=True) - pairs, SHAPE)


@triton.jit
def _rank_of(lane, BITS: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr):
    """The place after the sort of what a lane holds: its LOW last bits, its HIGH first ones, and those in between."""
    last = lane & ((1 << LOW) - 1)
    first = lane >> (BITS - HIGH)
    between = (lane >> LOW) & ((1 << (BITS - LOW - HIGH)) - 1)
    return last | (first << LOW) | (between << (LOW + HIGH))


@triton.jit
def _exchange(keys, rank, BIT: tl.constexpr, BITS: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Each pair of keys in order whose ranks differ in BIT."""
    LANE_BIT: tl.constexpr = BIT if BIT < LOW else BITS - HIGH + BIT - LOW if BIT < LOW + HIGH else BIT - HIGH
    others = _partners(keys, 1 << LANE_BIT)
    upper = (rank & (1 << BIT)) != 0
    return tl.where(upper, tl.maximum(keys, others), tl.minimum(keys, others))


@triton.jit
def _sorted_rows(keys, rank, BITS: tl.constexpr, LOW: tl.constexpr, HIGH: tl.constexpr):
    """Each row of the keys, (ROWS, 2^BITS) and all different, sorted: a bitonic sort; rank says where the least is.

    What a stage has to sort in descending order is flipped instead, so that the order of an exchange depends on one
    bit only. tl.sort does not choose which lanes are far apart, and the interpreter takes a second for a row of it.
    """
    flipped = tl.zeros_like(rank)
    for stage in tl.static_range(1, BITS + 1):
        flip = -((rank >> stage) & 1)
        keys ^= flip ^ flipped
        flipped = flip
        for step in tl.static_range(stage):
            keys = _exchange(keys, rank, stage - 1 - step, BITS, LOW, HIGH)
    return keys


@triton.jit
def _mended(start, ordered, rank, here, batch):
    """The ranks, after the two values on each side of a value were looked at; the row at `start` is written over."""
    tl.store(start + rank, ordered, mask=here & (rank < batch))
    tl.debug_barrier()
    mended = rank
    for near in tl.static_range(1, 3):
        after = tl.load(start + rank + near, mask=here & (rank + near < batch), other=float("inf"))
        before = tl.load(start + rank - near, mask=here & (rank >= near) & (rank < batch), other=float("-inf"))
        mended += (after < ordered).to(tl.int32) - (before > ordered).to(tl.int32)
    tl.debug_barrier()
    return mended


@triton.jit
def residuals_kernel(
    p, quantiles, sums, rows, batch,
    SIZE: tl.constexpr, BITS: tl.constexpr, ROWS: tl.constexpr, MEND: tl.constexpr,
    LOW: tl.constexpr, HIGH: tl.constexpr, SLOPE: tl.constexpr,
):  # fmt: skip
    """p becomes sorted p minus quantiles, each at its place before the sort, if SLOPE; sums are those of its squares.

    SIZE = 2^BITS is B rounded up. A key has 32 bits: the value, as a number of 32 - BITS bits between the least and
    the largest of its row, and in its last BITS the position, so that whatever the values are, NaN included, the
    sorted positions are a permutation. Values closer than 2^(BITS - 32) of that range may change places. Residuals
    are taken of the values themselves.

    MEND: with the slope, values that changed places within two of them are put right: in rows of thousands many are
    that close.

    LOW, HIGH: of a lane's bits, so many last and first ones number what one thread holds. They are the last bits of
    its rank, which a sort exchanges most often: that needs no shuffle.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    lane = tl.arange(0, SIZE)[None, :]
    inside = (row < rows) & (lane < batch)
    start = p + row * batch
    values = tl.load(start + lane, mask=inside, other=0.0)
    LAST: tl.constexpr = 2 ** (32 - BITS) - 1
    HALF: tl.constexpr = 2 ** (31 - BITS)
    least = tl.min(tl.where(inside, values, float("inf")), axis=1)[:, None]
    span = tl.max(tl.where(inside, values, float("-inf")), axis=1)[:, None] - least
    scale = tl.where(span > 0, tl.minimum(LAST / span, 3e38), 0.0)
    level = tl.minimum(tl.maximum((values - least) * scale, 0.0), LAST * 1.0)
    whole = tl.minimum(level.to(tl.int64), LAST).to(tl.int32) - HALF
    keys = (tl.where(inside, whole, HALF - 1) << BITS) | lane
    rank = _rank_of(lane, BITS, LOW, HIGH)
    position = _sorted_rows(keys, rank, BITS, LOW, HIGH) & (SIZE - 1)
    inside = (row < rows) & (rank < batch)
    ordered = tl.load(start + position, mask=inside, other=0.0)
    if SLOPE:
        tl.debug_barrier()  # another warp of this row may still read what this one is to overwrite
        if MEND:
            rank = _mended(start, ordered, rank, row < rows, batch)
    residual = tl.where(inside, ordered - tl.load(quantiles + rank, mask=rank < batch, other=0.0), 0.0)
    if SLOPE:
        tl.store(start + position, residual, mask=inside)
    total = tl.sum(residual * residual, axis=1)[:, None]
    tl.store(sums + row, total, mask=row < rows)
