# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The whole batch on every process, with gradient, and values that are equal on every process.

Shapes: x (V views, B images of this process, D dimension); N processes.
"""

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
from torch import Tensor

from ..distributed import rank_and_world


def gather_batch(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The images of all processes, in order of rank: (V, B, D) -> (V, N * B, D); x itself without a process group.

    In backward each process receives the sum over processes of the gradients of its own images. When every process
    computes the same loss of the result, DDP's mean over processes makes that the gradient of one process with the
    whole batch. Every process must bring the same shape.
    """
    if rank_and_world(group)[1] == 1:
        return x
    return collectives.all_gather_single(x.contiguous(), gather_dim=1, group=group or dist.group.WORLD)


def mean_over_ranks(x: Tensor, group: dist.ProcessGroup | None = None) -> Tensor:
    """The value is the mean of x over processes, the gradient that of this process's x (DDP takes its mean)."""
    if rank_and_world(group)[1] == 1:
        return x
    return _MeanValue.apply(x, group or dist.group.WORLD)


class _MeanValue(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, group: dist.ProcessGroup) -> Tensor:
        total = collectives.wait_tensor(collectives.all_reduce(x.detach(), "sum", group))
        return total / dist.get_world_size(group)

    @staticmethod
    def backward(ctx, upstream: Tensor):
        return upstream, None
