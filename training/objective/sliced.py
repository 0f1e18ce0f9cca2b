# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The sliced distance to the standard Gaussian: sort projections, compare with quantiles, put residuals back.

Shapes: x (V views, B images, D dimension), directions (D, K slices).
"""

import torch
from torch import Tensor

from .kernels import accumulate, differentiable_once, residual_statistic
from .slices import gaussian_quantiles


def sliced_gaussian_distance(x: Tensor, directions: Tensor, chunk: int = 0) -> Tensor:
    """Mean over (v, b, k) of (sorted p - Gaussian quantiles)^2, p = x W: a scalar, differentiable once, in x only.

    Args:
        x: (V, B, D), float32 or float64.
        directions: (D, K).
        chunk: slices taken at a time, 0 to choose by size; it does not change the result.
    """
    return differentiable_once(_sliced_distance, x, directions, chunk)


@torch.library.custom_op("visreg::sliced_distance", mutates_args=())
def _sliced_distance(x: Tensor, directions: Tensor, need_gradient: bool, chunk: int) -> tuple[Tensor, Tensor]:
    """Value and gradient; an operator, so that torch.compile takes it as it is."""
    statistic = residual_statistic(x, gaussian_quantiles(x.shape[1], x.device, x.dtype))
    value, gradient = accumulate(x, directions, statistic, need_gradient, chunk)
    count = x.shape[0] * x.shape[1] * directions.shape[1]
    return value / count, gradient.mul_(2 / count)


@_sliced_distance.register_fake
def _(x: Tensor, directions: Tensor, need_gradient: bool, chunk: int) -> tuple[Tensor, Tensor]:
    return x.new_empty(()), torch.empty_like(x) if need_gradient else x.new_empty(0)
