# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""SIGReg: the characteristic function of random 1-D projections against the standard Gaussian's.

Shapes: x (V views, B images, D dimension), directions (D, K slices).
"""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .checks import check_directions, check_projections, full_precision


KNOTS, LARGEST = 17, 3.0  # the published grid of LeJEPA: 17 knots of [0, 3]


@full_precision
def sigreg_loss(z: Tensor, directions: Tensor, chunk: int = 64) -> Tensor:
    """SIGReg (LeJEPA, arXiv 2511.08544) of z (V, B, D) over directions (D, K): a scalar.

    Mean over (v, k) of B * sum_t w(t) * (|mean_b cos(t p) - exp(-t^2/2)|^2 + |mean_b sin(t p)|^2), p = z W, t on 17
    knots of [0, 3], w the doubled trapezoid weights times exp(-t^2/2). Slices go through in chunks and each knot's
    cosine is recomputed, never stored: the plain form keeps (V, B, K, 17) values, 8 GB at V 10, B 512, K 4096.
    Differentiable once, in z only.
    """
    check_projections(z)
    check_directions(directions, z)
    return _Sigreg.apply(z, directions.detach().to(z.dtype), chunk)


class _Sigreg(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, directions: Tensor, chunk: int) -> Tensor:
        total, gradient = x.new_zeros(()), torch.zeros_like(x)
        for v, view in enumerate(x.detach()):
            for part in directions.split(chunk, dim=1):
                value, slope = _chunk(part.T @ view.T)
                total += value
                gradient[v].addmm_(slope.T, part.T)
        count = x.shape[0] * directions.shape[1]
        ctx.save_for_backward(gradient.div_(count))
        return total / count

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor):
        (gradient,) = ctx.saved_tensors
        return upstream * gradient, None, None


def _chunk(p: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over slices of the statistic of p (K_c, B), and its gradient in p."""
    batch, dt = p.shape[1], LARGEST / (KNOTS - 1)
    value, slope = p.new_zeros(()), torch.zeros_like(p)
    for knot in range(1, KNOTS):  # at t = 0 both differences vanish
        t = torch.tensor(knot * dt, dtype=torch.float64)
        target = torch.exp(-t * t / 2).item()
        weight = target * (dt if knot == KNOTS - 1 else 2 * dt)
        angle = p * t.item()
        cosine, sine = torch.cos(angle), torch.sin(angle)
        real, imaginary = cosine.mean(1, keepdim=True) - target, sine.mean(1, keepdim=True)
        value += weight * batch * (real.square().sum() + imaginary.square().sum())
        slope += (2 * weight * t.item()) * (imaginary * cosine - real * sine)
    return value, slope
