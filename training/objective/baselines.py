# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""VICReg's and Barlow Twins' regularizers in VISReg's frame, for comparison with everything else equal.

Shapes: z (V views, B images, D dimension).
"""

import torch
from torch import Tensor

from .checks import check_projections, full_precision


VICREG_VARIANCE = 25.0  # VICReg (arXiv 2105.04906), section 4.1: mu = 25, nu = 1
VICREG_EPS = 1e-6
BARLOW_OFF_DIAGONAL = 0.0051  # Barlow Twins (arXiv 2103.03230), section 2.2


def _deviation(x: Tensor, dim: int) -> Tensor:
    """Unbiased standard deviation of centered x over dim, kept as 1; gradient 0 where it is 0."""
    return torch.linalg.vector_norm(x, dim=dim, keepdim=True) / (x.shape[dim] - 1) ** 0.5


def _off_diagonal_squares(matrix: Tensor) -> Tensor:
    """Sum of the squared off-diagonal entries of (..., D, D)."""
    return (matrix - torch.diag_embed(matrix.diagonal(dim1=-2, dim2=-1))).square().sum()


@full_precision
def vicreg_loss(z: Tensor) -> Tensor:
    """VICReg's variance and covariance terms on the V * B rows of z (V, B, D); its invariance term is left out.

    25 * mean_d relu(1 - std_d)^2 + (sum of squared off-diagonal entries of the covariance) / D, std unbiased + 1e-6.

    Raises:
        ValueError: if z is not a finite (V, B, D) with B >= 2.
    """
    check_projections(z)
    rows = z.flatten(0, 1)
    centered = rows - rows.mean(dim=0)
    variance = torch.relu(1 - (_deviation(centered, 0) + VICREG_EPS)).square().mean()
    covariance = centered.T @ centered / (len(rows) - 1)
    return VICREG_VARIANCE * variance + _off_diagonal_squares(covariance) / z.shape[2]


@full_precision
def barlow_twins_loss(z: Tensor) -> Tensor:
    """Barlow Twins over consecutive views of z (V, B, D), mean over the V - 1 pairs; one view pairs with itself.

    Each view standardized over the batch (unbiased std + 1e-6), C = a'b / B, sum (C_ii - 1)^2 + 0.0051 * sum of
    squared off-diagonal entries.

    Raises:
        ValueError: if z is not a finite (V, B, D) with B >= 2.
    """
    check_projections(z)
    centered = z - z.mean(dim=1, keepdim=True)
    normal = centered / (_deviation(centered, 1) + VICREG_EPS)
    left, right = (normal, normal) if len(z) == 1 else (normal[:-1], normal[1:])
    correlation = left.transpose(1, 2) @ right / z.shape[1]
    diagonal = (correlation.diagonal(dim1=-2, dim2=-1) - 1).square().sum()
    return (diagonal + BARLOW_OFF_DIAGONAL * _off_diagonal_squares(correlation)) / len(left)
