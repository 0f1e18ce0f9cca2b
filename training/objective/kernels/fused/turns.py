# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One kernel for SIGReg's statistic: cos and sin of every knot, their means and the slope, nothing of it stored.

Shapes: p (rows, B images), knots (3, T): t, weight, target; sums (rows,), factors (2, T, rows) a scratch.
"""

import triton
import triton.language as tl


@triton.jit
def characteristic_kernel(
    p, knots, factors, sums, rows, batch, step,
    SIZE: tl.constexpr, ROWS: tl.constexpr, KNOTS: tl.constexpr, SLOPE: tl.constexpr,
):  # fmt: skip
    """p becomes the slope of the row's statistic in p, if SLOPE; sums are the statistics.

    The statistic is B * sum_t weight * (|mean cos(t p) - target|^2 + |mean sin(t p)|^2), t = step, 2 step, ... Cos
    and sin of one knot follow from those of the last by turning through p * step: for the means, then for the slope.
    """
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    lane = tl.arange(0, SIZE)[None, :]
    inside = (row < rows) & (lane < batch)
    here = row < rows
    angle = tl.load(p + row * batch + lane, mask=inside, other=0.0) * step
    one_cos, one_sin = tl.cos(angle), tl.sin(angle)
    cosine, sine = one_cos, one_sin
    total = tl.zeros([ROWS, 1], tl.float32)
    for knot in range(KNOTS):
        t, weight, target = tl.load(knots + knot), tl.load(knots + KNOTS + knot), tl.load(knots + 2 * KNOTS + knot)
        real = tl.sum(tl.where(inside, cosine, 0.0), axis=1)[:, None] / batch - target
        imaginary = tl.sum(tl.where(inside, sine, 0.0), axis=1)[:, None] / batch
        total += weight * batch * (real * real + imaginary * imaginary)
        if SLOPE:
            tl.store(factors + knot * rows + row, 2 * weight * t * imaginary, mask=here)
            tl.store(factors + (KNOTS + knot) * rows + row, 2 * weight * t * real, mask=here)
        cosine, sine = cosine * one_cos - sine * one_sin, sine * one_cos + cosine * one_sin
    tl.store(sums + row, total, mask=here)
    if SLOPE:
        tl.debug_barrier()  # the factors were stored by one warp
        cosine, sine = one_cos, one_sin
        slope = tl.zeros([ROWS, SIZE], tl.float32)
        for knot in range(KNOTS):
            of_cosine = tl.load(factors + knot * rows + row, mask=here, other=0.0)
            of_sine = tl.load(factors + (KNOTS + knot) * rows + row, mask=here, other=0.0)
            slope += of_cosine * cosine - of_sine * sine
            cosine, sine = cosine * one_cos - sine * one_sin, sine * one_cos + cosine * one_sin
        tl.store(p + row * batch + lane, slope, mask=inside)
