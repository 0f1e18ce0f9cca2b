# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What is launched on the rows of a chunk, p (V views, K slices of the chunk, B images): a statistic and its slope."""

from typing import Any

import torch
import triton
from torch import Tensor

from ..statistic import RowKernel
from .sort import residuals_kernel
from .turns import characteristic_kernel


MEND_ABOVE = 1024  # images up to which the order that the sort's keys give is as good as float32's; see sort.py
NUMBERS = 256  # of a program at least: small rows share one


def _shape(rows: int, batch: int) -> tuple[int, int, int]:
    """(SIZE, ROWS, number of programs)."""
    size = max(2, triton.next_power_of_2(batch))
    together = max(1, NUMBERS // size)
    return size, together, triton.cdiv(rows, together)


class Residuals(RowKernel):
    """The statistic sum of (sorted p - quantiles)^2; its slope without the factor 2."""

    def __init__(self, quantiles: Tensor):
        self.quantiles = quantiles

    def __call__(self, p: Tensor, sums: Tensor, need_slope: bool) -> None:
        """As in the class above."""
        rows, batch = p.shape
        size, together, programs = _shape(rows, batch)
        bits, warps = size.bit_length() - 1, _warps(size * together, 512)
        low, high = thread_bits(bits, together, warps, batch)
        residuals_kernel[(programs,)](
            p, self.quantiles, sums, rows, batch,
            SIZE=size, BITS=bits, ROWS=together, MEND=batch > MEND_ABOVE, LOW=low, HIGH=high, SLOPE=need_slope,
            num_warps=warps,
        )  # fmt: skip


def thread_bits(bits: int, together: int, warps: int, batch: int) -> tuple[int, int]:
    """(LOW, HIGH) of sort.py: how Triton lays 2^bits numbers out in a program of so many warps.

    A thread loads 4 neighbors at once where every row begins at a multiple of 16, the warps lie side by side, and what
    is left begins anew. Any other answer gives the same values, only later.
    """
    low = min(2, bits) if batch % 16 == 0 else 0
    lanes = low + 5 + warps.bit_length() - 1
    return low, max(0, bits - lanes) if together == 1 else 0


class Characteristic(RowKernel):
    """SIGReg's statistic on knots (3, T): t = step, 2 step, ..., T step, weights and targets."""

    def __init__(self, knots: Tensor, step: float):
        self.knots, self.step = knots, step

    def __call__(self, p: Tensor, sums: Tensor, need_slope: bool) -> None:
        """As in the class above."""
        rows, batch = p.shape
        size, together, programs = _shape(rows, batch)
        knots = self.knots.shape[1]
        factors = torch.empty(2, knots, rows, dtype=torch.float32, device=p.device)
        options: dict[str, Any] = {"num_warps": _warps(size * together, 256)}
        characteristic_kernel[(programs,)](
            p, self.knots, factors, sums, rows, batch, self.step,
            SIZE=size, ROWS=together, KNOTS=knots, SLOPE=need_slope, **options,
        )  # fmt: skip


def _warps(numbers: int, each: int) -> int:
    """So many warps that each has about `each` numbers: 1 to 16."""
    return max(1, min(16, numbers // each))
