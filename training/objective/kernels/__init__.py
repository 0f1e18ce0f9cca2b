# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Statistics of random 1-D projections, value and gradient in one pass over chunks of slices; a file a kind of device.

A statistic takes the projections of a chunk, p (rows, B), and gives the sum over rows of its value and its slope in p.
The gradient in x is slope' W', so a chunk is finished once it was seen: nothing of size V * B * K is kept, and
backward is one multiplication.

    cpu.py        a thread a core; chunks that fit its cache; NumPy's vectorized sorts
    device.py     an accelerator, by torch's operations
    fused/        an NVIDIA GPU, by Triton kernels
    statistic.py  the types of a statistic

Shapes: x (V views, B images, D dimension), directions (D, K slices), p (rows: one a view and slice, B).
"""

import functools
from typing import Any

import torch
from torch import Tensor

from . import cpu, device, fused
from .statistic import MakeStatistic, Operator, RowKernel


def accumulate(
    x: Tensor, directions: Tensor, make_statistic: MakeStatistic | RowKernel, need_gradient: bool, chunk: int = 0
) -> tuple[Tensor, Tensor]:
    """(sum over rows of the statistic: scalar, its gradient in x: (V, B, D), or (0,) when it is not needed).

    Args:
        x, directions: of one type and device.
        make_statistic: called with the largest number of rows to come, by each thread for itself; or what is launched
            on the rows of a chunk, where `fused.usable(x)`.
        chunk: slices in a chunk; 0 chooses by size.
    """
    if isinstance(make_statistic, RowKernel):
        from .fused.loop import accumulate as run_kernels

        return run_kernels(x, directions, make_statistic, need_gradient, chunk)
    run = cpu.accumulate if x.device.type == "cpu" else device.accumulate
    return run(x, directions, make_statistic, need_gradient, chunk)


def residual_statistic(x: Tensor, quantiles: Tensor) -> MakeStatistic | RowKernel:
    """Sum of (sorted p - quantiles)^2: what `accumulate` takes as `make_statistic`; quantiles (B,), ascending."""
    if fused.usable(x):
        from .fused.rows import Residuals

        return Residuals(quantiles)
    return functools.partial(cpu.Residuals if x.device.type == "cpu" else device.Residuals, quantiles)


def differentiable_once(operator: Operator, x: Tensor, directions: Tensor, chunk: int) -> Tensor:
    """The operator's value (a scalar) with its gradient in x; none flows into the directions."""
    wanted = x.requires_grad and torch.is_grad_enabled()
    value, gradient = operator(x.detach(), directions.detach().to(x.dtype), wanted, chunk)
    return _OneGradient.apply(x, value, gradient) if wanted else value


class _OneGradient(torch.autograd.Function):
    """Give `value` the gradient in x that was computed with it; it cannot be differentiated again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError("sliced losses can be differentiated once only: create_graph=True is not supported")
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None
