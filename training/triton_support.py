# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Where kernels in Triton can run. Triton comes with torch on Linux for NVIDIA's GPUs; nothing here needs it."""

import os
from functools import cache
from importlib.util import find_spec

import torch


@cache
def has_triton() -> bool:
    """Whether Triton is installed."""
    return find_spec("triton") is not None


def interprets_triton() -> bool:
    """Whether Triton's interpreter runs the kernels, on a CPU too (TRITON_INTERPRET=1 before Triton is imported)."""
    return os.environ.get("TRITON_INTERPRET") == "1" and has_triton()


def runs_triton(device: torch.device) -> bool:
    """Whether kernels in Triton run for tensors of this device: an NVIDIA GPU, or a CPU under the interpreter.

    ROCm, MPS, XPU and Windows keep what torch has: nobody has measured the kernels there. Neither do GPUs before
    Volta, which Triton does not support.
    """
    if device.type == "cpu":
        return interprets_triton()
    if device.type != "cuda" or torch.version.cuda is None or not has_triton():
        return False
    return interprets_triton() or torch.cuda.get_device_capability(device) >= (7, 0)
