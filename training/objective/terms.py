# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The terms of VISReg (arXiv 2606.02572, section 3): pure functions of the projections.

Shapes: z (V views, B images, D dimension), global views first; directions (D, K slices). Statistics are taken over
the batch, for each view apart.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .checks import check_directions, check_num_global, check_projections, full_precision
from .options import ObjectiveOptions
from .sliced import sliced_gaussian_distance


class BatchStatistics(NamedTuple):
    """centered (V, B, D) = z - mu; mean (V, 1, D) = mu; sigma (V, 1, D) = biased standard deviation + eps."""

    centered: Tensor
    mean: Tensor
    sigma: Tensor


def batch_statistics(z: Tensor, eps: float = ObjectiveOptions.eps) -> BatchStatistics:
    """Statistics over the batch of z (V, B, D). As a norm, the deviation has gradient 0 (not NaN) where it is 0."""
    mean = z.mean(dim=1, keepdim=True)
    centered = z - mean
    sigma = torch.linalg.vector_norm(centered, dim=1, keepdim=True) / z.shape[1] ** 0.5 + eps
    return BatchStatistics(centered, mean, sigma)


def standardize(statistics: BatchStatistics) -> Tensor:
    """(z - mu) / stop_gradient(sigma): (V, B, D). The stop-gradient decouples shape from scale (equation 2)."""
    return statistics.centered / statistics.sigma.detach()


@full_precision
def invariance_loss(z: Tensor, num_global: int) -> Tensor:
    """Equation 8: mean over (v, b, d) of (z - mean of the global views of z)^2, gradient through the mean too.

    Args:
        z: (V, B, D), the `num_global` global views first.
        num_global: how many views the mean is taken over, 1..V.

    Raises:
        ValueError: if z is not a finite (V, B, D) or num_global is out of 1..V.
    """
    check_projections(z, min_batch=1)
    check_num_global(num_global, z.shape[0])
    return (z - z[:num_global].mean(dim=0)).square().mean()


@full_precision
def center_loss(z: Tensor) -> Tensor:
    """Equation 6: mean over (v, d) of mu^2, mu (V, D) the mean over the batch of z (V, B, D).

    Raises:
        ValueError: if z is not a finite (V, B, D) with B >= 2.
    """
    check_projections(z)
    return z.mean(dim=1).square().mean()


@full_precision
def scale_loss(z: Tensor, eps: float = ObjectiveOptions.eps) -> Tensor:
    """Equation 1: mean over (v, d) of (1 - sigma)^2, sigma = sqrt(mean_b (z - mu)^2) + eps, of z (V, B, D).

    As sigma goes to 0 the length of the gradient tends to a constant, which is what pulls a collapsing embedding
    apart. At sigma = 0 exactly there is no direction to pull in: the gradient is 0, the subgradient of the norm.

    Raises:
        ValueError: if z is not a finite (V, B, D) with B >= 2.
    """
    check_projections(z)
    return (1 - batch_statistics(z, eps).sigma).square().mean()


@full_precision
def shape_loss(z: Tensor, directions: Tensor, eps: float = ObjectiveOptions.eps) -> Tensor:
    """Equations 2 to 5: how far random 1-D projections of the standardized z are from a Gaussian.

    Mean over (v, b, k) of (p_sorted[b] - Phi^-1((b + 1) / (B + 1)))^2, with p = ((z - mu) / stop_gradient(sigma)) W.

    The gradient grows like 1 / sigma as sigma goes to 0; eps bounds it: 1 / (sigma + eps) <= 1e6 by default.

    Args:
        z: (V, B, D).
        directions: W (D, K), unit columns, see `sample_directions`. No gradient goes into them.
        eps: added to sigma, 1e-6 as published.

    Raises:
        ValueError: if z is not a finite (V, B, D) with B >= 2, or directions do not fit.
        RuntimeError: on a second differentiation, which the fused kernel does not offer.
    """
    check_projections(z)
    check_directions(directions, z)
    return sliced_gaussian_distance(standardize(batch_statistics(z, eps)), directions)


@full_precision
def sliced_wasserstein_loss(z: Tensor, directions: Tensor) -> Tensor:
    """The shape term's formula on z (V, B, D) itself, neither centered nor scaled; directions (D, K).

    Raises:
        ValueError: if z is not a finite (V, B, D) with B >= 2, or directions do not fit.
        RuntimeError: on a second differentiation, which the fused kernel does not offer.
    """
    check_projections(z)
    check_directions(directions, z)
    return sliced_gaussian_distance(z, directions)


@full_precision
def visreg_loss(z: Tensor, directions: Tensor, eps: float = ObjectiveOptions.eps) -> Tensor:
    """VISReg's regularizer with the published weights: scale + shape + center of z (V, B, D), directions (D, K).

    Raises:
        ValueError: if z is not a finite (V, B, D) with B >= 2, or directions do not fit.
        RuntimeError: on a second differentiation, which the fused kernel does not offer.
    """
    check_projections(z)
    check_directions(directions, z)
    center, scale, shape = visreg_terms(z, directions, eps)
    return scale + shape + center


@full_precision
def visreg_terms(z: Tensor, directions: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(center, scale, shape) of z (V, B, D) from one pass over its statistics; equal to the functions above."""
    statistics = batch_statistics(z, eps)
    center = statistics.mean.square().mean()
    scale = (1 - statistics.sigma).square().mean()
    return center, scale, sliced_gaussian_distance(standardize(statistics), directions)
