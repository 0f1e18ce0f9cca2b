# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The sliced statistics on an NVIDIA GPU as Triton kernels; everything else takes torch's path in device.py.

    loop.py       chunks of slices: product, statistic, product
    products.py   p = W' x' and gradient = slope' W' on tensor cores
    rows.py       what is launched on the rows of p: residuals, characteristic function
    sort.py       the kernel of the residuals: one sort a row, in registers
    turns.py      the kernel of the characteristic function

Triton is imported by these files only, and they only where `usable` says so. Shapes: x (V views, B images,
D dimension), directions (D, K slices), p (V, K of a chunk, B).
"""

import functools
import importlib.util

import torch
from torch import Tensor


LARGEST_BATCH = 8192  # one program sorts a row; beyond it would not fit into registers


def usable(x: Tensor) -> bool:
    """Whether the kernels take x (V, B, D): float32 on an NVIDIA GPU with tensor cores for it, B up to 8192."""
    return x.is_cuda and x.dtype == torch.float32 and x.shape[1] <= LARGEST_BATCH and _has_kernels(x.device)


@functools.cache
def _has_kernels(device: torch.device) -> bool:
    if torch.version.hip is not None or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability(device) >= (8, 0)
