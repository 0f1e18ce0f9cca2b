# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""All terms of VISReg as one operator with one backward, for an NVIDIA GPU; the equations are those of terms.py.

Written with torch's operations the terms are about 90 launches, which take longer than the slices do at small
batches; here they are three kernels around those of the slices, and one in backward.

Shapes: z (V views, B images, D dimension), directions (D, K slices); the six terms are scalars.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import recorded
from .kernels import fused
from .slices import gaussian_quantiles


TYPES = (torch.float32, torch.bfloat16, torch.float16)


def takes(z: Tensor) -> bool:
    """Whether the operator computes the terms of z."""
    return z.dtype in TYPES and fused.fits(z)


def merged_terms(
    z: Tensor, directions: Tensor, num_global: int, eps: float, weights: list[float]
) -> tuple[Tensor, ...]:
    """The six terms in the order of VISRegTerms, in float32; differentiable once, in z only.

    Args:
        z: (V, B, D), of which `takes` is true.
        directions: (D, K).
        num_global: how many views come first that the others are compared with.
        eps: added to sigma.
        weights: lambda, the weights of scale, shape and center, and the share of the slices.
    """
    z, directions = z.contiguous(), directions.detach().to(torch.float32)
    options = num_global, eps, weights
    if not (z.requires_grad and torch.is_grad_enabled()):
        return operators(z).terms(z, directions, *options, False)[:6]
    return _Merged.apply(z, directions, options)


class Operators(NamedTuple):
    """What computes the terms and their gradient."""

    terms: Callable[..., tuple[Tensor, ...]]
    gradient: Callable[..., Tensor]


def operators(z: Tensor) -> Operators:
    """The functions themselves, or as operators of torch where a compiler or a fake tensor has to see one: their
    dispatch costs more than a launch.
    """
    if torch.compiler.is_compiling() or type(z) not in (Tensor, torch.nn.Parameter):
        return Operators(_terms, _terms_gradient)
    return Operators(replay_or_compute if recorded.usable(z) else compute_terms, compute_gradient)


class _Merged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, directions: Tensor, options: recorded.Options) -> tuple[Tensor, ...]:
        *terms, moments, slope = operators(z).terms(z, directions, *options, True)
        ctx.set_materialize_grads(False)  # a zero would be a launch
        ctx.save_for_backward(z, moments, slope)
        ctx.options, ctx.slices = options, directions.shape[1]
        return tuple(terms)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor, None, None]:
        check_once()
        z, moments, slope = ctx.saved_tensors
        return operators(z).gradient(list(upstream), z, moments, slope, ctx.slices, *ctx.options), None, None


def check_once() -> None:
    """Raises RuntimeError where a gradient of the gradient is asked for."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError("sliced losses can be differentiated once only: create_graph=True is not supported")


def compute_terms(
    z: Tensor, directions: Tensor, num_global: int, eps: float, weights: list[float], need_gradient: bool
) -> tuple[Tensor, ...]:
    """(the six terms, moments (2, V, D), slope (V, B, D), or (0,) when it is not needed)."""
    from .kernels.fused.loop import run_chunks
    from .kernels.fused.rows import Residuals
    from .kernels.fused.terms import Weights, combine, standardize

    with torch.cuda.device_of(z):
        x, moments, sums = standardize(z, num_global, eps)
        statistic = Residuals(gaussian_quantiles(x.shape[1], x.device, x.dtype))
        rows, partial = run_chunks(x, directions, statistic, need_gradient)
        terms = combine(sums, rows, partial, x, Weights(*weights))
    return *terms, moments, x if need_gradient else x.new_empty(0)


recorder = recorded.Recorder(compute_terms)


def replay_or_compute(
    z: Tensor, directions: Tensor, num_global: int, eps: float, weights: list[float], need_gradient: bool
) -> tuple[Tensor, ...]:
    """As `compute_terms`, by a CUDA graph where these shapes came before."""
    recording = recorder.recording(z, directions, (num_global, eps, weights)) if need_gradient else None
    if recording is None:
        return compute_terms(z, directions, num_global, eps, weights, need_gradient)
    return recording(z, directions)


_terms = torch.library.custom_op(
    "visreg::terms",
    compute_terms,
    mutates_args=(),
    schema="(Tensor z, Tensor directions, int num_global, float eps, float[] weights, bool need_gradient) -> "
    "(Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",  # torch 2.6 cannot infer float[]
)


@_terms.register_fake
def _(
    z: Tensor, directions: Tensor, num_global: int, eps: float, weights: list[float], need_gradient: bool
) -> tuple[Tensor, ...]:
    views, _, dim = z.shape
    slope = z.new_empty(z.shape if need_gradient else (0,), dtype=torch.float32)
    return *(slope.new_empty(()) for _ in range(6)), slope.new_empty(2, views, dim), slope


def compute_gradient(
    upstream: Sequence[Tensor | None],
    z: Tensor,
    moments: Tensor,
    slope: Tensor,
    slices: int,
    num_global: int,
    eps: float,
    weights: list[float],
) -> Tensor:
    """The gradient in z, from those in the six terms; None is 0."""
    from .kernels.fused.terms import Weights, gradient_in_z

    with torch.cuda.device_of(z):
        return gradient_in_z(upstream, z, moments, slope, num_global, slices, eps, Weights(*weights))


_terms_gradient = torch.library.custom_op(
    "visreg::terms_gradient",
    compute_gradient,
    mutates_args=(),
    schema="(Tensor?[] upstream, Tensor z, Tensor moments, Tensor slope, int slices, int num_global, float eps, "
    "float[] weights) -> Tensor",
)


@_terms_gradient.register_fake
def _(upstream: Sequence[Tensor | None], z: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(z)
