# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Sliced distance to the standard Gaussian: value and gradient in one pass over chunks of slices.

Shapes: x (V views, B images, D dimension), directions (D, K slices).
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .slices import gaussian_quantiles


def sliced_gaussian_distance(x: Tensor, directions: Tensor, chunk: int = 256) -> Tensor:
    """Mean over (v, b, k) of (sorted projections - Gaussian quantiles)^2, differentiable once in x."""
    return _SlicedDistance.apply(x, directions.detach().to(x.dtype), chunk)


class _SlicedDistance(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, directions: Tensor, chunk: int) -> Tensor:
        value, gradient = _sort_with_torch(x.detach(), directions, chunk)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor):
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


def _sort_with_torch(x: Tensor, directions: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    quantiles = gaussian_quantiles(x.shape[1], x.device, x.dtype)
    total, gradient = x.new_zeros(()), torch.zeros_like(x)
    transposed = x.transpose(1, 2)
    for part in directions.split(chunk, dim=1):
        ordered, order = torch.sort(part.T @ transposed, dim=-1)
        residual = ordered - quantiles
        total += residual.square().sum()
        residual = torch.empty_like(residual).scatter_(-1, order, residual)
        gradient += residual.transpose(1, 2) @ part.T
    count = x.shape[0] * x.shape[1] * directions.shape[1]
    return total / count, gradient * (2 / count)
