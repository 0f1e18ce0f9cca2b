# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The sliced statistics on a CPU: a thread a core, chunks that fit its cache, NumPy's vectorized sorts.

A thread that takes a chunk through product, sort and product by itself is faster than all threads on one operation
after the other. torch and NumPy release the interpreter's lock.

Shapes: x (V views, B images, D dimension), directions (D, K slices), p (rows: one a view and slice, B).
"""

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ...threads import single_core_threads
from .statistic import MakeStatistic


T = TypeVar("T")

CHUNK = 1 << 17  # numbers: 512 KB, so that a core works in its cache and product and sort stay efficient


def accumulate(
    x: Tensor, directions: Tensor, make_statistic: MakeStatistic, need_gradient: bool, chunk: int = 0
) -> tuple[Tensor, Tensor]:
    """As in the folder's `accumulate`."""
    views, batch, _ = x.shape
    chunk = chunk or max(8, CHUNK // batch)
    starts = range(0, directions.shape[1], chunk)
    gradient = torch.zeros_like(x, memory_format=torch.contiguous_format) if need_gradient else x.new_empty(0)

    @torch.no_grad()
    def run(part: range) -> tuple[float, dict[int, Tensor]]:
        """A run of (view, chunk) pairs, one after the other in one thread; sums of the first view may be partial."""
        value, partial = 0.0, dict[int, Tensor]()
        buffer = x.new_empty(min(chunk, directions.shape[1]), batch)
        statistic = make_statistic(len(buffer))
        for pair in part:
            v, start = pair // len(starts), starts[pair % len(starts)]
            columns = directions[:, start : start + chunk].T
            p = torch.mm(columns, x[v].T, out=buffer[: len(columns)])
            addend, slope = statistic(p, need_gradient)
            value += float(addend)
            if slope is not None:
                shared = v == part.start // len(starts) and part.start % len(starts)
                target = partial.setdefault(v, torch.zeros_like(gradient[v])) if shared else gradient[v]
                target.addmm_(slope.T, columns)
        return value, partial

    total = 0.0
    for value, partial in run_split(run, views * len(starts)):
        total += value
        for v, addend in partial.items():
            gradient[v] += addend
    return x.new_tensor(total), gradient


class Residuals:
    """The statistic sum of (sorted p - quantiles)^2, in buffers that are allocated once a thread (page faults cost).

    The residual of a projection is its distance to the quantile of its rank, so the quantiles are put into batch order
    and the projections are never moved.
    """

    def __init__(self, quantiles: Tensor, rows: int):
        self.quantiles = quantiles
        self.rank_order = PackedOrder(rows, len(quantiles)) if quantiles.dtype == torch.float32 else _argsort
        self.target = quantiles.new_empty(rows, len(quantiles))

    def __call__(self, p: Tensor, need_slope: bool) -> tuple[float, Tensor | None]:
        if need_slope:
            order, quantiles = self.rank_order(p), self.quantiles.expand_as(p)
            residual = p.sub_(self.target[: len(p)].scatter_(-1, order, quantiles))
        else:
            p.numpy().sort(axis=-1)
            residual = p.sub_(self.quantiles)
        flat = residual.view(-1)
        return torch.dot(flat, flat).item(), residual if need_slope else None


def _argsort(p: Tensor) -> Tensor:
    return torch.from_numpy(np.argsort(p.numpy(), axis=-1))


class PackedOrder:
    """argsort of each row of a float32 p (rows, B) on the CPU, in a third of NumPy's time; reuses its buffer.

    A float32 as a float64 leaves the last 29 bits of the mantissa zero. The position goes there, which can change the
    order of equal values only; one sort of plain numbers, and the last bits are the permutation. NaN and infinite
    values lose theirs: what they give is no permutation, but the statistic is not finite then, and says so.
    """

    def __init__(self, rows: int, batch: int):
        self.positions = torch.arange(batch)
        self.mask = (1 << (batch - 1).bit_length()) - 1
        self.keys = torch.empty(rows, batch, dtype=torch.float64)

    def __call__(self, p: Tensor) -> Tensor:
        """order (rows, B), int64; valid until the next call."""
        keys = self.keys[: len(p)].copy_(p)
        bits = keys.view(torch.int64)
        bits.bitwise_or_(self.positions)
        keys.numpy().sort(axis=-1)
        return bits.bitwise_and_(self.mask)


def run_split(job: Callable[[range], T], count: int) -> list[T]:
    """job(range) on contiguous parts of range(count), one a thread; the results in the order of the parts.

    The parts depend on `count` and torch.get_num_threads() only, so sums over them are reproducible.
    """
    threads = min(torch.get_num_threads(), count)
    if threads <= 1:
        return [job(range(count))]
    parts = [range(i * count // threads, (i + 1) * count // threads) for i in range(threads)]
    return list(_pool(torch.get_num_threads()).map(job, parts))


@functools.lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return single_core_threads(threads, "visreg-objective")


os.register_at_fork(after_in_child=_pool.cache_clear)  # threads do not survive a fork
