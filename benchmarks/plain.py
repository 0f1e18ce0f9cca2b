# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The terms written as plainly as the paper states them: what the fused kernels are compared with.

Shapes: z (V views, B images, D dimension), directions (D, K slices).
"""

import math

import torch
from torch import Tensor


def standardized(z: Tensor, eps: float = 1e-6) -> Tensor:
    """(V, B, D), sigma without gradient."""
    mean = z.mean(1, keepdim=True)
    sigma = (z - mean).square().mean(1, keepdim=True).sqrt() + eps
    return (z - mean) / sigma.detach()


def sliced_wasserstein(z: Tensor, directions: Tensor) -> Tensor:
    """Everything at once, by torch.sort and autograd."""
    batch = z.shape[1]
    ranks = torch.arange(1, batch + 1, dtype=torch.float64) / (batch + 1)
    quantiles = torch.special.ndtri(ranks).to(z)
    ordered = (z @ directions).sort(dim=1).values
    return (ordered - quantiles[:, None]).square().mean()


def shape(z: Tensor, directions: Tensor) -> Tensor:
    """Equations 2 to 5."""
    return sliced_wasserstein(standardized(z), directions)


def scale(z: Tensor) -> Tensor:
    """Equation 1, away from sigma = 0."""
    return (1 - (z.var(1, unbiased=False).sqrt() + 1e-6)).square().mean()


def sigreg(z: Tensor, directions: Tensor) -> Tensor:
    """Every knot of every projection at once: (V, B, K, 17) values."""
    t = torch.linspace(0, 3, 17, dtype=z.dtype)
    target = torch.exp(-t.square() / 2)
    weights = torch.full((17,), 2 * 3 / 16, dtype=z.dtype)
    weights[[0, -1]] = 3 / 16
    angle = (z @ directions)[..., None] * t
    distance = (angle.cos().mean(1) - target).square() + angle.sin().mean(1).square()
    return (distance * weights * target).sum(-1).mean() * z.shape[1]


def relative_error(value: Tensor, reference: Tensor) -> float:
    """|value - reference| / |reference| in the Euclidean norm, in float64."""
    reference = reference.double()
    size = reference.norm().item()
    return (value.double() - reference).norm().item() / size if size else math.inf


def gradient(term, z: Tensor) -> Tensor:
    """The gradient in z of the scalar term(z)."""
    z = z.detach().clone().requires_grad_()
    return torch.autograd.grad(term(z), z)[0]
