# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Peak memory of one call: the device's own count on CUDA, the kernel's high-water mark of this process on Linux."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch


PROC = Path("/proc/self")


def extra_peak(call: Callable[[], object], device: torch.device) -> int | None:
    """Bytes by which memory in use rose above where it stood when `call` began; None where nobody counts it.

    On a CPU it is resident memory, so what the allocator holds of an earlier call of the same size does not show:
    take it at the first call.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        (PROC / "clear_refs").write_text("5")  # resets VmHWM to VmRSS
        before = _status("VmRSS")
    except (OSError, AttributeError):  # no Linux, or a sandbox without it
        call()
        return None
    call()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    """A field of /proc/self/status, in bytes (the kernel gives KiB)."""
    line = next(line for line in (PROC / "status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024
