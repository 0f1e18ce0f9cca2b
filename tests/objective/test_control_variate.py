# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The control variate: no bias, less noise, and what beta does."""

import plain
import pytest
import torch

from visreg_training.objective import VISRegObjective, sample_directions, shape_loss
from visreg_training.objective.control_variate import control_variate_surrogate, expected_matrix, fit_beta


DRAWS, VIEWS, BATCH, DIM, SLICES = 400, 2, 48, 12, 24


def low_rank(generator: torch.Generator) -> torch.Tensor:
    """Standardised (V, B, D) of rank 3: far from a Gaussian in most directions."""
    z = torch.randn(VIEWS, BATCH, 3, generator=generator, dtype=torch.float64)
    return plain.standardized(z @ torch.randn(3, DIM, generator=generator, dtype=torch.float64))


def gradients(x: torch.Tensor, control_variate: bool, generator: torch.Generator) -> torch.Tensor:
    """Gradients of shape in x for fresh directions: (DRAWS, V * B * D)."""
    rows = []
    for _ in range(DRAWS):
        directions = sample_directions(DIM, SLICES, generator, dtype=torch.float64)

        def loss(x, directions=directions):
            value = plain.sliced_wasserstein(x, directions)
            return value + control_variate_surrogate(x, directions) if control_variate else value

        rows.append(plain.gradient(loss, x).flatten())
    return torch.stack(rows)


def test_it_is_unbiased_and_removes_noise():
    generator = torch.Generator().manual_seed(0)
    x = low_rank(generator)
    many = sample_directions(DIM, 200_000, generator, dtype=torch.float64)
    truth = plain.gradient(lambda x: shape_of_many(x, many), x).flatten()
    noise = {}
    for on in (False, True):
        drawn = gradients(x, on, generator)
        noise[on] = drawn.var(0).sum()
        # the mean of DRAWS gradients lies as far from the truth as chance allows: E|mean - truth|^2 = noise / DRAWS
        distance = (drawn.mean(0) - truth).square().sum()
        assert distance < 3 * noise[on] / DRAWS
    assert noise[True] < noise[False] / 2


def shape_of_many(x: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """The plain mean over more directions than fit at once."""
    parts = directions.split(20_000, dim=1)
    return torch.stack([plain.sliced_wasserstein(x, part) for part in parts]).mean()


def test_the_expectation_is_the_formula():
    generator = torch.Generator().manual_seed(0)
    x = low_rank(generator)[0]
    covariance = x.T @ x / BATCH
    directions = sample_directions(DIM, 400_000, generator, dtype=torch.float64)
    excess = (directions * (covariance @ directions)).sum(0) - 1
    measured = (directions * excess) @ directions.T / directions.shape[1]
    torch.testing.assert_close(measured, expected_matrix(covariance), rtol=0, atol=3e-3)
    assert plain.relative_error(measured, expected_matrix(covariance)) < 0.02


def test_beta_is_a_function_of_the_data_alone():
    generator = torch.Generator().manual_seed(0)
    x = low_rank(generator)[0]
    covariance = x.T @ x / BATCH
    betas = [fit_beta(x, covariance, expected_matrix(covariance)) for _ in range(2)]
    torch.manual_seed(7)
    assert betas[0] == betas[1] == fit_beta(x, covariance, expected_matrix(covariance))
    assert 0.3 < betas[0] < 1.5


def test_the_value_is_untouched_and_the_gradient_is_not():
    z = torch.randn(2, 32, 8, generator=torch.Generator().manual_seed(0))
    directions = sample_directions(8, 16, torch.Generator().manual_seed(1))
    plainly, controlled = VISRegObjective(16), VISRegObjective(16, control_variate=True)
    z.requires_grad_()
    assert controlled(z, 1, directions).shape == plainly(z, 1, directions).shape
    torch.testing.assert_close(plainly(z, 1, directions).shape.detach(), shape_loss(z, directions).detach())
    first, second = (torch.autograd.grad(o(z, 1, directions).total, z)[0] for o in (plainly, controlled))
    assert (first - second).abs().max() > 1e-7


@pytest.mark.parametrize("z", [torch.zeros(2, 16, 8), torch.randn(1, 2, 8), torch.randn(2, 16, 1).expand(2, 16, 8)])
def test_it_stays_finite(z):
    z = z.clone().requires_grad_()
    VISRegObjective(16, control_variate=True)(z, 1).total.backward()
    assert z.grad.isfinite().all()
