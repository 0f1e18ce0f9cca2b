# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Milliseconds of device, wall and host, launches, and the peak that this card reaches. Works on a CPU, too."""

import contextlib
import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch


DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
ON_GPU = DEVICE.type == "cuda"


def synchronize() -> None:
    """Wait until the device is done."""
    if ON_GPU:
        torch.cuda.synchronize()


def card() -> str:
    """The card and the versions that a timing depends on."""
    name = torch.cuda.get_device_name() if ON_GPU else "no GPU"
    return f"{name}, torch {torch.__version__}"


def measured(call: Callable[[], Any], warm: int, repeats: int) -> dict[str, float]:
    """Medians over calls, in milliseconds, and memory.

    Returns:
        `device`: by CUDA events, calls queued behind one another; `wall`: one call alone, until the device is done;
        `host`: one call alone, until it returns; `peak_mb`: allocated above what was there before.
    """
    for _ in range(warm):
        call()
    synchronize()
    before = peak_start()
    wall, host = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        host.append(time.perf_counter() - start)
        synchronize()
        wall.append(time.perf_counter() - start)
    result = {"wall": 1000 * statistics.median(wall), "host": 1000 * statistics.median(host)}
    result |= {"device": queued(call, repeats), "peak_mb": peak_since(before) / 1e6}
    return result


def queued(call: Callable[[], Any], repeats: int) -> float:
    """Median of milliseconds between the ends of calls that are queued without waiting in between."""
    if not ON_GPU:
        started = time.perf_counter()
        call()
        return 1000 * (time.perf_counter() - started)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(repeats + 1)]
    events[0].record()
    for event in events[1:]:
        call()
        event.record()
    synchronize()
    return statistics.median(a.elapsed_time(b) for a, b in pairwise(events))


def peak_start() -> int:
    """Allocated bytes now; the peak counts from here."""
    if not ON_GPU:
        return 0
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()


def peak_since(before: int) -> int:
    """Highest allocated bytes above `before`."""
    return torch.cuda.max_memory_allocated() - before if ON_GPU else 0


def launches(call: Callable[[], Any]) -> int:
    """Kernels, copies and fills that one call puts on the device, as CUDA reports them; 0 on a CPU."""
    if not ON_GPU:
        return 0
    from torch.profiler import ProfilerActivity, profile

    synchronize()
    with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as recorded:
        call()
        synchronize()
    device = torch.autograd.DeviceType.CUDA
    return sum(event.device_type() == device for event in recorded.profiler.kineto_results.events())


def peak_tflops(size: int = 8192) -> float:
    """TFLOP/s of dense bf16 products of random matrices, the median of five."""
    size = size if ON_GPU else 256
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    timed = measured(lambda: a @ b, warm=3, repeats=5)
    return 2 * size**3 / timed["device"] / 1e9


def autocast() -> contextlib.AbstractContextManager:
    """bf16, as the recipes have it."""
    return torch.autocast(DEVICE.type, torch.bfloat16)
