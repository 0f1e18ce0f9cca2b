# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What every term does before it computes: check what came in, leave autocast, go up to float32.

Shapes: z (V views, B images, D dimension), directions (D, K slices).
"""

import contextlib
import contextvars
import functools
import math
from collections.abc import Callable, Iterator
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor


P = ParamSpec("P")
R = TypeVar("R")

_looks_for_nan = contextvars.ContextVar("looks_for_nan", default=True)


@contextlib.contextmanager
def nan_checks(enabled: bool) -> Iterator[None]:
    """Whether the checks inside the block refuse NaN and infinite values, or let them through to the loss."""
    token = _looks_for_nan.set(enabled)
    try:
        yield
    finally:
        _looks_for_nan.reset(token)


def check_projections(z: Tensor, min_batch: int = 2) -> None:
    """Raise ValueError unless z is a finite, floating (V, B, D) with V >= 1, B >= `min_batch`, D >= 1.

    Finiteness is looked at on the CPU only: on an accelerator it would cost a synchronization a step, and the
    training loop's own check of the loss finds the same thing.
    """
    if not isinstance(z, Tensor) or z.dim() != 3:
        shape = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(f"z must be a tensor of shape (V views, B images, D dimension), got {shape}")
    if not z.is_floating_point():
        raise ValueError(f"z must be of a floating type, got {z.dtype}")
    views, batch, dim = z.shape
    if views < 1 or dim < 1:
        raise ValueError(f"z needs at least one view and one dimension, got V={views}, D={dim}")
    if batch < min_batch:
        raise ValueError(f"statistics over the batch need at least {min_batch} images, got B={batch}")
    looks = z.device.type == "cpu" and not torch.compiler.is_compiling() and _looks_for_nan.get()
    if looks and not _all_finite(z.detach()):
        raise ValueError("z holds NaN or infinite values; look for what diverged before the objective")


def _all_finite(z: Tensor) -> bool:
    """A sum is finite only where all values are, and takes a quarter of the time of asking each; it may overflow."""
    return math.isfinite(z.sum().item()) or bool(z.isfinite().all())


def check_directions(directions: Tensor, z: Tensor) -> None:
    """Raise ValueError unless directions is a floating (D, K) on z's device, with z's D and K >= 1."""
    if not isinstance(directions, Tensor) or directions.dim() != 2 or directions.shape[0] != z.shape[-1]:
        shape = tuple(directions.shape) if isinstance(directions, Tensor) else type(directions).__name__
        raise ValueError(f"directions must have shape (D, K) with D={z.shape[-1]} as in z, got {shape}")
    if directions.shape[1] < 1:
        raise ValueError("directions must hold at least one slice, got K=0")
    if not directions.is_floating_point():
        raise ValueError(f"directions must be of a floating type, got {directions.dtype}")
    if directions.device != z.device:
        raise ValueError(f"directions are on {directions.device} and z on {z.device}; move one of them")


def check_num_global(num_global: int, views: int) -> None:
    """Raise ValueError unless 1 <= num_global <= V."""
    if not 1 <= num_global <= views:
        raise ValueError(f"num_global must lie in 1..{views}, the number of views, got {num_global}")


def at_least_float32(x: Tensor) -> Tensor:
    """Half precisions as float32; anything else as it is."""
    return x.float() if x.is_floating_point() and x.dtype.itemsize < 4 else x


def full_precision(term: Callable[Concatenate[Tensor, P], R]) -> Callable[Concatenate[Tensor, P], R]:
    """Let a function of z run outside autocast, in float32 at least."""

    @functools.wraps(term)
    def wrapped(z: Tensor, *args: P.args, **kwargs: P.kwargs) -> R:
        if not isinstance(z, Tensor):
            check_projections(z)
        with torch.autocast(z.device.type, enabled=False):
            return term(at_least_float32(z), *args, **kwargs)

    return wrapped
