# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A control variate for the shape term: less noise in its gradient from the same directions, without bias.

The gradient of shape is a mean over random directions w of 2 r w', r the residual of the sorted p = x w against the
Gaussian quantiles. Where p is close to a Gaussian of variance 1 + q, r is close to p q / 2, so p q w' follows the
gradient; and with C = x'x / B, q = w'Cw - 1, its mean over the sphere is known:

    E[p q w'] = x ((tr(C) I + 2 C) / (D (D + 2)) - I / D).

Subtracting beta * (p q w' - its mean) keeps the expectation for every beta that does not depend on the directions.

Shapes: x (V views, B images, D dimension), standardised; directions (D, K slices).
"""

import torch
from torch import Tensor

from .slices import fixed_directions, gaussian_quantiles


PILOT_SLICES = 64


def control_variate_surrogate(x: Tensor, directions: Tensor) -> Tensor:
    """A scalar of value 0 whose gradient in x (V, B, D), added to that of shape, removes noise.

    Beta is fitted for each view on 64 directions that are fixed for ever: it is a function of x alone, so it brings
    no bias, needs no state between steps and is the same on every process that holds x.
    """
    correction = _correction(x.detach(), directions.detach().to(x.dtype))
    surrogate = (x * correction).sum()
    return surrogate - surrogate.detach()


@torch.no_grad()
def _correction(x: Tensor, directions: Tensor) -> Tensor:
    """-beta * (control variate - its mean) in the scale of the gradient of shape: (V, B, D)."""
    views, batch, _ = x.shape
    correction = torch.empty_like(x)
    for v in range(views):  # a view at a time: K slices of D numbers are held, not V times that
        covariance = x[v].T @ x[v] / batch
        excess = (directions * (covariance @ directions)).sum(0) - 1  # q
        sample = (directions * excess) @ directions.T / directions.shape[1]
        expected = expected_matrix(covariance)
        beta = fit_beta(x[v], covariance, expected)
        correction[v] = x[v] @ (sample - expected) * (-beta / (views * batch))
    return correction


def expected_matrix(covariance: Tensor) -> Tensor:
    """E[q w w'] over the sphere for C (D, D): (tr(C) I + 2 C) / (D (D + 2)) - I / D."""
    dim = covariance.shape[0]
    identity = torch.eye(dim, device=covariance.device, dtype=covariance.dtype)
    return (covariance.trace() * identity + 2 * covariance) / (dim * (dim + 2)) - identity / dim


def fit_beta(x: Tensor, covariance: Tensor, expected: Tensor) -> Tensor:
    """Cov(gradient, control variate) / Var(control variate) over the pilot directions, one view x (B, D): a scalar."""
    batch, dim = x.shape
    pilot = fixed_directions(dim, PILOT_SLICES, x.device, x.dtype)
    p = pilot.T @ x.T  # (pilot, B)
    order = torch.argsort(p, dim=-1)
    ranked = gaussian_quantiles(batch, x.device, x.dtype).expand_as(p)
    residual = p - torch.empty_like(p).scatter_(-1, order, ranked)
    excess = p.square().mean(1) - 1
    # inner products of (B, D) matrices whose rows are numbers times w': |w| = 1 leaves those of the columns
    gradient_variate = (2 * excess * (residual * p).sum(1)).mean()
    variate_variate = (excess.square() * p.square().sum(1)).mean()
    mean_gradient = 2 / PILOT_SLICES * (residual.T @ pilot.T)  # (B, D)
    mean_variate = x @ expected
    covariance_of_both = gradient_variate - (mean_gradient * mean_variate).sum()
    variance = variate_variate - mean_variate.square().sum()
    usable = variance > torch.finfo(x.dtype).eps * variate_variate
    return torch.where(usable, covariance_of_both / torch.where(usable, variance, 1), 0).clamp(0, 2)
