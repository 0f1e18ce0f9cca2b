# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The fused kernels against plain autograd, on sizes and data that the golden values do not cover."""

import math

import pytest
import torch

from benchmarks import plain
from visreg_training.objective import sample_directions, shape_loss, sigreg_loss, sliced_wasserstein_loss
from visreg_training.objective.kernels import accumulate, device
from visreg_training.objective.kernels.cpu import PackedOrder
from visreg_training.objective.sliced import sliced_gaussian_distance
from visreg_training.objective.slices import gaussian_quantiles


def projections(views=3, batch=40, dim=24, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(views, batch, dim, generator=generator, dtype=dtype) * 1.5 + 0.3


PAIRS = [
    (shape_loss, plain.shape),
    (sliced_wasserstein_loss, plain.sliced_wasserstein),
    (sigreg_loss, plain.sigreg),
]


def either_order(x, directions):
    """What the gradient in x may differ by, in norm, because neighbors lie closer together than rounding of the
    products: each order is then right, and exchanging two moves each by the distance of their quantiles.
    """
    p = (x.double() @ directions.double()).sort(dim=1).values
    close = p.diff(dim=1) < 4 * torch.finfo(x.dtype).eps * p.abs().amax()
    quantiles = gaussian_quantiles(x.shape[1], x.device, torch.float64)
    return 2 * math.sqrt(2) * (close * quantiles.diff()[:, None]).sum().item() / p.numel()


@pytest.mark.parametrize(("fused", "reference"), PAIRS)
@pytest.mark.parametrize("batch", [2, 3, 33, 257])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_equals_plain_autograd(fused, reference, batch, dtype):
    z, directions = projections(batch=batch, dtype=dtype), sample_directions(24, 50, dtype=dtype)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-5
    assert plain.relative_error(fused(z, directions), reference(z, directions)) < tolerance
    ours, theirs = (plain.gradient(lambda z, f=f: f(z, directions), z) for f in (fused, reference))
    slack = 0.0
    if fused is not sigreg_loss:
        x = plain.standardized(z) if fused is shape_loss else z
        slack = either_order(x, directions) / theirs.norm().item()
    assert plain.relative_error(ours, theirs) < tolerance + slack


@pytest.mark.parametrize("loss", [sliced_wasserstein_loss, sigreg_loss])
def test_gradcheck(loss):
    z, directions = projections(2, 7, 5), sample_directions(5, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: loss(z, directions), z.requires_grad_())


@pytest.mark.parametrize("loss", [shape_loss, sliced_wasserstein_loss, sigreg_loss])
def test_a_second_differentiation_raises(loss):
    z, directions = projections().requires_grad_(), sample_directions(24, 8)
    with pytest.raises(RuntimeError, match="once"):
        torch.autograd.grad(loss(z, directions), z, create_graph=True)


@pytest.mark.parametrize("loss", [shape_loss, sliced_wasserstein_loss, sigreg_loss])
def test_without_gradient_the_value_is_the_same(loss):
    z, directions = projections(dtype=torch.float32).requires_grad_(), sample_directions(24, 30)
    with torch.no_grad():
        quiet = loss(z, directions)
    assert not quiet.requires_grad
    torch.testing.assert_close(quiet, loss(z, directions).detach(), rtol=1e-6, atol=0)


def test_the_path_of_accelerators_equals_the_path_of_the_cpu():
    # It is torch code without synchronization; here it runs on the CPU.
    x, directions = projections(dtype=torch.float32), sample_directions(24, 50)
    quantiles = gaussian_quantiles(40, x.device, x.dtype)
    for chunk in (0, 7):
        total, slope = device.accumulate(x, directions, lambda rows: device.Residuals(quantiles, rows), True, chunk)
        reference = x.clone().requires_grad_()
        value = sliced_gaussian_distance(reference, directions)
        value.backward()
        torch.testing.assert_close(total / (3 * 40 * 50), value.detach(), rtol=1e-5, atol=0)
        torch.testing.assert_close(slope * (2 / (3 * 40 * 50)), reference.grad, rtol=1e-4, atol=1e-8)


ROWS = {
    "gaussian": lambda g, b: torch.randn(64, b, generator=g),
    "ties": lambda g, b: torch.randint(0, 5, (64, b), generator=g).float(),
    "constant": lambda g, b: torch.full((64, b), 0.7),
    "zero": lambda g, b: torch.zeros(64, b),
    "both zeros": lambda g, b: torch.randn(64, b, generator=g) * 0.0,
    "denormal": lambda g, b: torch.randn(64, b, generator=g) * 1e-42,
    "an outlier": lambda g, b: torch.cat([torch.randn(64, b - 1, generator=g), torch.full((64, 1), 1e9)], 1),
    "tiny": lambda g, b: torch.randn(64, b, generator=g) * 1e-36,
    "huge": lambda g, b: torch.randn(64, b, generator=g) * 1e36,
    "close together": lambda g, b: 1 + torch.randn(64, b, generator=g) * 1e-6,
}


@pytest.mark.parametrize("batch", [2, 3, 100, 512, 5000])
@pytest.mark.parametrize("kind", ROWS)
def test_the_packed_order_sorts_exactly(kind, batch):
    p = ROWS[kind](torch.Generator().manual_seed(0), batch)
    order = PackedOrder(64, batch)(p)
    assert torch.equal(p.gather(-1, order), p.sort(dim=-1).values)
    assert torch.equal(order.sort(dim=-1).values, torch.arange(batch).expand(64, -1))


@pytest.mark.parametrize("views", [1, 2, 5])
@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_any_number_of_threads_gives_the_same(views, threads):
    before = torch.get_num_threads()
    z, directions = projections(views), sample_directions(24, 50, dtype=torch.float64)
    expected = plain.gradient(lambda z: plain.sliced_wasserstein(z, directions), z)
    try:
        torch.set_num_threads(threads)
        z.requires_grad_()
        first, second = (torch.autograd.grad(sliced_gaussian_distance(z, directions, 3), z)[0] for _ in range(2))
        assert torch.get_num_threads() == threads  # the pool leaves the caller's setting alone
    finally:
        torch.set_num_threads(before)
    assert torch.equal(first, second)
    assert plain.relative_error(first, expected) < 1e-12


def test_a_statistic_of_ones_own():
    # The frame is no friend of one statistic: the second moment has a gradient known by heart.
    x, directions = projections(), sample_directions(24, 50, dtype=torch.float64)
    total, gradient = accumulate(x, directions, lambda rows: lambda p, _: (p.square().sum(), p * 2), True)
    torch.testing.assert_close(total, (x @ directions).square().sum())
    torch.testing.assert_close(gradient, 2 * x @ directions @ directions.T)


@pytest.mark.parametrize("loss", [shape_loss, sigreg_loss])
def test_compiles_as_one_graph(loss):
    z, directions = projections(dtype=torch.float32), sample_directions(24, 30)

    def step(z):
        return loss(torch.tanh(z), directions)

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(plain.gradient(compiled, z), plain.gradient(step, z), rtol=1e-5, atol=1e-9)
