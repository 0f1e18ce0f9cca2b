# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Numbers that tell a collapse early, from tensors that the step has anyway.

Shapes: z (V views, B images, D dimension), features (V, B, d width of the backbone).
"""

import torch
from torch import Tensor

from .checks import full_precision
from .options import ObjectiveOptions
from .terms import batch_statistics


@full_precision
def effective_rank(x: Tensor) -> Tensor:
    """RankMe (arXiv 2210.02885): exp of the entropy of the singular values of x, as a scalar on x's device.

    The singular values are the roots of the eigenvalues of the smaller Gram matrix, taken in float64 (so that the
    small ones are not lost to the squaring); they are normalized to sum 1.

    Args:
        x: (B, D), or (V, B, D) whose views count as further rows. No gradient flows.

    Returns:
        A scalar between 1 and min(rows, D); 0 when x is zero, NaN when it holds values that are not finite.
    """
    rows = x.detach().flatten(0, -2).double()
    gram = rows.T @ rows if rows.shape[0] >= rows.shape[1] else rows @ rows.T
    finite = gram.isfinite().all()
    singular = torch.linalg.eigvalsh(gram.nan_to_num(0, 0, 0)).clamp_min(0).sqrt()
    share = singular / singular.sum().clamp_min(torch.finfo(torch.float64).tiny)
    entropy = -torch.special.xlogy(share, share).sum()
    return torch.where(finite, entropy.exp() * (singular.sum() > 0), torch.nan).float()


@torch.no_grad()
def embedding_diagnostics(
    z: Tensor, features: Tensor | None = None, eps: float = ObjectiveOptions.eps
) -> dict[str, Tensor]:
    """Scalars on z's device, to be read once a logging interval; the terms themselves come from the objective.

    Args:
        z: projections (V, B, D).
        features: (V, B, d), optional.
        eps: as in the scale term.

    Returns:
        sigma_min, sigma_mean: of the standard deviations over the batch, of all views and dimensions.
        projection_rank, feature_rank: `effective_rank` of the first view (the second only with features). One view
            suffices, and its cost does not grow with V.

    Raises:
        ValueError: a tensor has other than three dimensions.
    """
    for name, tensor in (("z", z), ("features", features)):
        if tensor is not None and tensor.ndim != 3:
            raise ValueError(
                f"{name} must be (views, images, dimension), not {tuple(tensor.shape)}; one view: x[None]"
            )
    sigma = full_precision(batch_statistics)(z.detach(), eps).sigma
    values = {
        "sigma_min": sigma.min(),
        "sigma_mean": sigma.mean(),
        "projection_rank": effective_rank(z[0]),
    }
    if features is not None:
        values["feature_rank"] = effective_rank(features[0])
    return values
