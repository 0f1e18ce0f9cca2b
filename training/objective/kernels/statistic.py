# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The types of a sliced statistic.

Shapes: x (V views, B images, D dimension), directions (D, K slices), p (rows: one a view and slice, B).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from torch import Tensor


# (p, whether the slope is wanted) -> (value, slope); may overwrite p, and reuse what it returned before.
Statistic = Callable[[Tensor, bool], tuple[Tensor | float, Tensor | None]]
# Called with the largest number of rows to come, by each thread for itself.
MakeStatistic = Callable[[int], Statistic]
# (x, directions, whether the gradient is wanted, chunk) -> (value, gradient in x)
Operator = Callable[[Tensor, Tensor, bool, int], tuple[Tensor, Tensor]]


class RowKernel(ABC):
    """A statistic as one launch on the rows of a chunk, for the loop of fused/."""

    @abstractmethod
    def __call__(self, p: Tensor, sums: Tensor, need_slope: bool) -> None:
        """sums (rows,) become the values of the rows, and p (rows, B) the slope if it is needed."""
