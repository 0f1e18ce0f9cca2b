# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The whole batch on every process, with gradient, and values that are equal on every process.

Shapes: x (V views, B images of this process, D dimension); N processes.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ..compat import all_gather_single, reduce_scatter_single
from ..distributed import rank_and_world


def gather_batch(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The images of all processes, in order of rank: (V, B, D) -> (V, N * B, D); x itself without a process group.

    In backward each process receives the sum over processes of the gradients of its own images. When every process
    computes the same loss of the result, DDP's mean over processes makes that the gradient of one process with the
    whole batch. Every process must bring the same shape.
    """
    if rank_and_world(group)[1] == 1:
        return x
    return _GatherBatch.apply(x, group or dist.group.WORLD)


def mean_over_ranks(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The value is the mean of x over processes, the gradient that of this process's x (DDP takes its mean)."""
    if rank_and_world(group)[1] == 1:
        return x
    return _MeanValue.apply(x, group or dist.group.WORLD)


class _GatherBatch(torch.autograd.Function):
    """The collectives run along the first axis, so images come first for them: (B, V, D)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        ctx.group = group
        own = x.transpose(0, 1).contiguous()
        whole = own.new_empty(len(own) * dist.get_world_size(group), *own.shape[1:])
        all_gather_single(whole, own, group)
        return whole.transpose(0, 1).contiguous()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        whole = upstream.transpose(0, 1).contiguous()
        own = whole.new_empty(len(whole) // dist.get_world_size(ctx.group), *whole.shape[1:])
        reduce_scatter_single(own, whole, ctx.group)
        return own.transpose(0, 1).contiguous(), None


class _MeanValue(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        total = x.detach().clone()
        dist.all_reduce(total, group=group)
        return total / dist.get_world_size(group)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        return upstream, None
