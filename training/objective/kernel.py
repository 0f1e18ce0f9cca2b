# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Statistics of random 1-D projections, value and gradient in one pass over chunks of slices.

A statistic takes the projections of a chunk, p (rows, B), and gives the sum over rows of its value and its slope in p.
The gradient in x is slope' W', so a chunk is done for good once it was seen: nothing of size V * B * K is ever kept,
and backward is one multiplication.

Shapes: x (V views, B images, D dimension), directions (D, K slices), p (rows: one a view and slice, B).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .threads import run_split


# (p, whether the slope is wanted) -> (value, slope); may overwrite p, and reuse what it returned before.
Statistic = Callable[[Tensor, bool], tuple[Tensor | float, Tensor | None]]

CPU_CHUNK = (
    1 << 17
)  # numbers in a chunk: 512 KB, so that a core works in its cache and product and sort stay efficient
DEVICE_CHUNK = 1 << 23  # enough to fill an accelerator; its sort takes about 0.2 GB of buffers


def accumulate(
    x: Tensor, directions: Tensor, make_statistic: Callable[[int], Statistic], need_gradient: bool, chunk: int = 0
):
    """(sum over rows of the statistic: scalar, its gradient in x: (V, B, D), or (0,) when it is not needed).

    Args:
        x, directions: of one type and device.
        make_statistic: called with the largest number of rows to come, by each thread for itself.
        chunk: slices in a chunk; 0 chooses by size.
    """
    run = _accumulate_cpu if x.device.type == "cpu" else _accumulate_device
    return run(x, directions, make_statistic, need_gradient, chunk)


def _accumulate_cpu(
    x: Tensor, directions: Tensor, make_statistic: Callable[[int], Statistic], need_gradient: bool, chunk: int
):
    views, batch, _ = x.shape
    chunk = chunk or max(8, CPU_CHUNK // batch)
    starts = range(0, directions.shape[1], chunk)
    gradient = torch.zeros_like(x, memory_format=torch.contiguous_format) if need_gradient else x.new_empty(0)

    @torch.no_grad()
    def run(part: range) -> tuple[float, dict[int, Tensor]]:
        """A run of (view, chunk) pairs, one after the other in one thread; sums of the first view may be partial."""
        value, partial = 0.0, {}
        buffer = x.new_empty(min(chunk, directions.shape[1]), batch)
        statistic = make_statistic(len(buffer))
        for pair in part:
            v, start = pair // len(starts), starts[pair % len(starts)]
            columns = directions[:, start : start + chunk].T
            p = torch.mm(columns, x[v].T, out=buffer[: len(columns)])
            addend, slope = statistic(p, need_gradient)
            value += float(addend)
            if need_gradient:
                shared = v == part.start // len(starts) and part.start % len(starts)
                target = partial.setdefault(v, torch.zeros_like(gradient[v])) if shared else gradient[v]
                target.addmm_(slope.T, columns)
        return value, partial

    total = 0.0
    for value, partial in run_split(run, views * len(starts)):
        total += value
        for v, addend in partial.items():
            gradient[v] += addend
    return x.new_tensor(total), gradient


def _accumulate_device(
    x: Tensor, directions: Tensor, make_statistic: Callable[[int], Statistic], need_gradient: bool, chunk: int
):
    chunk = chunk or max(1, DEVICE_CHUNK // (x.shape[0] * x.shape[1]))
    total, statistic = x.new_zeros(()), make_statistic(x.shape[0] * chunk)
    gradient = torch.zeros_like(x, memory_format=torch.contiguous_format) if need_gradient else x.new_empty(0)
    for columns in directions.split(chunk, dim=1):
        p = columns.T @ x.transpose(1, 2)  # (V, K_c, B)
        value, slope = statistic(p.flatten(0, 1), need_gradient)
        total += value
        if need_gradient:
            gradient.baddbmm_(slope.view_as(p).transpose(1, 2), columns.T.expand(len(x), -1, -1))
    return total, gradient


class OneGradient(torch.autograd.Function):
    """Give `value` the gradient in x that was computed with it; it cannot be differentiated again."""

    @staticmethod
    def forward(ctx, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx, upstream: Tensor):
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError("sliced losses can be differentiated once only: create_graph=True is not supported")
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None
