# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The sliced statistics on an NVIDIA GPU as Triton kernels; everything else takes torch's path in device.py.

    loop.py       chunks of slices: product, statistic, product
    products.py   p = W' x' and gradient = slope' W' on tensor cores
    rows.py       what is launched on the rows of p: residuals, characteristic function
    sort.py       the kernel of the residuals: one sort a row, in registers
    turns.py      the kernel of the characteristic function
    terms.py      what surrounds the slices: statistics, the other terms, the gradient in z
    unit.py       directions of length 1

Triton is imported by these files only, and they only where `usable` says so. Shapes: x (V views, B images,
D dimension), directions (D, K slices), p (V, K of a chunk, B).
"""

import functools

import torch
from torch import Tensor

from ....triton_support import interprets_triton, runs_triton


LARGEST_BATCH = 8192  # one program sorts a row; beyond it would not fit into registers


def usable(x: Tensor) -> bool:
    """Whether the kernels take x (V, B, D): float32, and it `fits`."""
    return x.dtype == torch.float32 and fits(x)


def fits(x: Tensor) -> bool:
    """Whether there are kernels for x's device, and for its B: up to 8192."""
    return x.shape[1] <= LARGEST_BATCH and has_kernels(x.device)


@torch.compiler.assume_constant_result
def has_kernels(device: torch.device) -> bool:
    """Whether the device is an NVIDIA GPU with tensor cores for float32, or a CPU under Triton's interpreter."""
    return _has_kernels(device)


@functools.cache
def _has_kernels(device: torch.device) -> bool:
    return runs_triton(device) and (interprets_triton() or torch.cuda.get_device_capability(device) >= (8, 0))
