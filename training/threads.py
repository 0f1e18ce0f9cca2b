# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Threads beside the main one that run torch on one core each."""

import threading
from concurrent.futures import ThreadPoolExecutor

import torch


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
