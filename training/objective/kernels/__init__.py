# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Statistics of random 1-D projections, value and gradient in one pass over chunks of slices; a file a kind of device.

A statistic takes the projections of a chunk, p (rows, B), and gives the sum over rows of its value and its slope in p.
The gradient in x is slope' W', so a chunk is finished once it was seen: nothing of size V * B * K is kept, and
backward is one multiplication.

    cpu.py     a thread a core; chunks that fit its cache; NumPy's vectorized sorts
    device.py  an accelerator, by torch's operations

Shapes: x (V views, B images, D dimension), directions (D, K slices), p (rows: one a view and slice, B).
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from . import cpu, device


# (p, whether the slope is wanted) -> (value, slope); may overwrite p, and reuse what it returned before.
Statistic = Callable[[Tensor, bool], tuple[Tensor | float, Tensor | None]]
# (x, directions, whether the gradient is wanted, chunk) -> (value, gradient in x)
Operator = Callable[[Tensor, Tensor, bool, int], tuple[Tensor, Tensor]]


def accumulate(
    x: Tensor, directions: Tensor, make_statistic: Callable[[int], Statistic], need_gradient: bool, chunk: int = 0
) -> tuple[Tensor, Tensor]:
    """(sum over rows of the statistic: scalar, its gradient in x: (V, B, D), or (0,) when it is not needed).

    Args:
        x, directions: of one type and device.
        make_statistic: called with the largest number of rows to come, by each thread for itself.
        chunk: slices in a chunk; 0 chooses by size.
    """
    kernel = cpu if x.device.type == "cpu" else device
    return kernel.accumulate(x, directions, make_statistic, need_gradient, chunk)


def residual_statistic(quantiles: Tensor) -> Callable[[int], Statistic]:
    """Sum of (sorted p - quantiles)^2: what `accumulate` takes as `make_statistic`; quantiles (B,), ascending."""
    kernel = cpu if quantiles.device.type == "cpu" else device
    return functools.partial(kernel.Residuals, quantiles)


def differentiable_once(operator: Operator, x: Tensor, directions: Tensor, chunk: int) -> Tensor:
    """The operator's value (a scalar) with its gradient in x; none flows into the directions."""
    wanted = x.requires_grad and torch.is_grad_enabled()
    value, gradient = operator(x.detach(), directions.detach().to(x.dtype), wanted, chunk)
    return _OneGradient.apply(x, value, gradient) if wanted else value


class _OneGradient(torch.autograd.Function):
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
