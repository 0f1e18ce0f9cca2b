# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The sliced statistics on an accelerator, by torch's operations, without a synchronization.

Shapes: x (V views, B images, D dimension), directions (D, K slices), p (rows: one a view and slice, B).
"""

import torch
from torch import Tensor

from .statistic import MakeStatistic


CHUNK = 3 << 20  # numbers: enough to fill an accelerator; with their sort they take less than 0.1 GB


def accumulate(
    x: Tensor, directions: Tensor, make_statistic: MakeStatistic, need_gradient: bool, chunk: int = 0
) -> tuple[Tensor, Tensor]:
    """As in the folder's `accumulate`."""
    chunk = chunk or max(1, CHUNK // (x.shape[0] * x.shape[1]))
    total, statistic = x.new_zeros(()), make_statistic(x.shape[0] * chunk)
    gradient = torch.zeros_like(x, memory_format=torch.contiguous_format) if need_gradient else x.new_empty(0)
    for columns in directions.split(chunk, dim=1):
        p = columns.T @ x.transpose(1, 2)  # (V, K_c, B)
        value, slope = statistic(p.flatten(0, 1), need_gradient)
        total += value
        if slope is not None:
            gradient.baddbmm_(slope.view_as(p).transpose(1, 2), columns.T.expand(len(x), -1, -1))
    return total, gradient


class Residuals:
    """The statistic sum of (sorted p - quantiles)^2 by torch's sort."""

    def __init__(self, quantiles: Tensor, rows: int):
        self.quantiles = quantiles

    def __call__(self, p: Tensor, need_slope: bool) -> tuple[Tensor, Tensor | None]:
        ordered, order = torch.sort(p, dim=-1)
        residual = ordered.sub_(self.quantiles)
        value = residual.square().sum()
        return value, p.scatter_(-1, order, residual) if need_slope else None
