# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A pool of threads that each run torch and NumPy on one core, as many as torch.get_num_threads().

A chunk of slices fits a core's cache, so a thread that takes it through product, sort and product by itself is
faster than all threads on one operation after the other. torch and NumPy release the interpreter's lock.
"""

import functools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def run_split(job: Callable[[range], object], count: int) -> list:
    """job(range) on contiguous parts of range(count), one a thread; the results in the order of the parts.

    The parts depend on `count` and torch.get_num_threads() only, so sums over them are reproducible.
    """
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        return [job(range(count))]
    parts = [range(i * count // threads, (i + 1) * count // threads) for i in range(threads)]
    return list(_pool(torch.get_num_threads()).map(job, parts))


def single_core_threads(count: int, name: str) -> ThreadPoolExecutor:
    """`count` threads whose torch operations use one core each; the calling thread keeps all of its own."""
    started, own = threading.Barrier(count + 1), torch.get_num_threads()

    def start_single() -> None:
        torch.get_num_threads()  # a thread's first use of torch sets its number to the common one: not after ours
        torch.set_num_threads(1)  # of this thread, and of threads that start after it: hence the last line
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix=name)
    for _ in range(count):
        pool.submit(start_single)
    started.wait()
    torch.set_num_threads(own)
    return pool


@functools.lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return single_core_threads(threads, "visreg-objective")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
