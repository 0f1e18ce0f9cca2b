# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Random directions, a rank's part of them, and the Gaussian quantiles that sorted projections are compared with.

Shapes: directions (D dimension, K slices), unit columns; quantiles (B images,).
"""

import functools
from typing import NamedTuple

import torch
from torch import Tensor

from ..option import check_options
from ..seeding import torch_generator
from .kernels.fused import has_kernels
from .options import ObjectiveOptions


class Slices(NamedTuple):
    """One rank's directions of one step.

    directions: (D, K_r), unit columns.
    share: the factor that makes the mean over ranks of (share * mean over the rank's slices) the mean over all
        slices: N * K_r / K for shared slices, 1 for slices of the rank's own.
    """

    directions: Tensor
    share: float


def sample_directions(
    dim: int,
    num_slices: int,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Directions drawn uniformly from the sphere: (D, K), columns of length 1 (paper, section 3.2).

    Args:
        dim: D, the dimension of the projections.
        num_slices: K, the number of directions.
        generator: where the numbers come from; torch's global generator of the device by default.
        device: where the result lies; the generator's device by default, else the CPU.
        dtype: of the result.

    Raises:
        ValueError: if dim or num_slices is below 1.
    """
    if dim < 1 or num_slices < 1:
        raise ValueError(f"directions need dim >= 1 and num_slices >= 1, got {dim} and {num_slices}")
    if device is None and generator is not None:
        device = generator.device
    directions = torch.randn(dim, num_slices, generator=generator, device=device, dtype=dtype)
    if dtype == torch.float32 and not torch.compiler.is_compiling() and has_kernels(directions.device):
        from .kernels.fused.unit import make_unit

        return make_unit(directions)
    return directions.div_(torch.linalg.vector_norm(directions, dim=0).clamp_min_(torch.finfo(dtype).tiny))


def rank_share(num_slices: int, rank: int, world: int) -> slice:
    """The contiguous part of K shared slices that belongs to a rank; parts differ by at most one slice.

    Raises:
        ValueError: if a rank would get none (K < N) or rank is not in 0..N-1.
    """
    if not 0 <= rank < world:
        raise ValueError(f"rank must lie in 0..{world - 1}, got {rank}")
    if num_slices < world:
        raise ValueError(f"{num_slices} shared slices cannot be split over {world} processes: give at least {world}")
    return slice(rank * num_slices // world, (rank + 1) * num_slices // world)


@torch.compiler.disable
def draw_directions(
    dim: int,
    num_slices: int,
    seed: int,
    step: int,
    *,
    slices: str = ObjectiveOptions.slices,
    rank: int = 0,
    world: int = 1,
    device: torch.device | str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Slices:
    """A rank's directions of a step: a pure function of (seed, step, rank), so that resuming needs no state.

    Args:
        dim, num_slices: D and K. K counts all ranks together for "shared", each rank alone for "per_rank".
        seed, step: non-negative integers that fix the draw (with the type of the device: CPU and CUDA differ).
        slices: "shared": every rank draws the same K columns and keeps its contiguous part, so N processes use the
            very slices that one would; "per_rank": each draws K of its own (the published setting, section 3.2).
        rank, world: this process and the number of processes.
        device, dtype: of the result; CPU and float32 by default.

    Returns:
        Slices(directions (D, K_r), share).
    """
    check_options(ObjectiveOptions(slices=slices))
    if slices == "per_rank":
        generator = torch_generator("directions_of_rank", seed, step, rank, device=device)
        return Slices(sample_directions(dim, num_slices, generator, device, dtype), 1.0)
    part = rank_share(num_slices, rank, world)
    generator = torch_generator("directions", seed, step, device=device)
    directions = sample_directions(dim, num_slices, generator, device, dtype)
    return Slices(directions[:, part], world * (part.stop - part.start) / num_slices)


@torch.compiler.assume_constant_result
def gaussian_quantiles(batch: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Phi^-1((b + 1) / (B + 1)) for b = 0..B-1: (B,), taken in float64 and then cast. Do not write to it."""
    return _quantiles(batch, device, dtype)


@torch.compiler.assume_constant_result
def fixed_directions(dim: int, num_slices: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The same (D, K) directions at every call, for what must not depend on the directions of the step."""
    return _fixed(dim, num_slices, device, dtype)


@functools.lru_cache(maxsize=16)
def _quantiles(batch: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    ranks = torch.arange(1, batch + 1, dtype=torch.float64) / (batch + 1)
    return torch.special.ndtri(ranks).to(device=device, dtype=dtype)


@functools.lru_cache(maxsize=4)
def _fixed(dim: int, num_slices: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    return draw_directions(dim, num_slices, seed=0, step=0).directions.to(device=device, dtype=dtype)
