# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Peak memory of one call: resident, from the kernel's own high-water mark (Linux), and of the tensors of torch."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

from torch.profiler import ProfilerActivity, profile


STATUS = Path("/proc/self/status")


def _status(field: str) -> int:
    """A field of /proc/self/status, in bytes (the kernel gives KiB)."""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def extra_peak(call: Callable[[], object]) -> int:
    """Bytes by which resident memory rose above where it stood when `call` began, at its highest."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to VmRSS
    before = _status("VmRSS")
    call()
    return _status("VmHWM") - before


def allocated_peak(call: Callable[[], object]) -> int:
    """Bytes of tensors on the CPU, at their highest, above what was there when `call` began.

    It counts what torch asks for, which is what fills a GPU; resident memory adds what the C library keeps of blocks
    that were given back to it.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        call()
    changes = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    current = peak = 0
    for change in sorted(changes, key=lambda event: event.start_ns()):
        current += change.nbytes()
        peak = max(peak, current)
    return peak
