# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""At the edges: collapse, tiny sigma, two images, half precision, autocast, and what is refused."""

import pytest
import torch

from visreg_training.objective import (
    VISRegObjective,
    barlow_twins_loss,
    center_loss,
    invariance_loss,
    sample_directions,
    scale_loss,
    shape_loss,
    sigreg_loss,
    sliced_wasserstein_loss,
    vicreg_loss,
)
from visreg_training.objective.regularizers import REGULARIZERS


DIRECTIONS = sample_directions(8, 12, torch.Generator().manual_seed(0))
TERMS = {
    "center": center_loss,
    "scale": scale_loss,
    "shape": lambda z: shape_loss(z, DIRECTIONS.to(z.device)),
    "swd": lambda z: sliced_wasserstein_loss(z, DIRECTIONS),
    "sigreg": lambda z: sigreg_loss(z, DIRECTIONS),
    "vicreg": vicreg_loss,
    "barlow": barlow_twins_loss,
    "invariance": lambda z: invariance_loss(z, 1),
}
EDGES = {
    "zero": torch.zeros(2, 16, 8),
    "constant": torch.full((2, 16, 8), 0.1),
    "sigma 1e-12": torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(1)) * 1e-12,
    "one dead dimension": torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(1)) * (torch.arange(8) > 0),
    "two images": torch.randn(2, 2, 8, generator=torch.Generator().manual_seed(1)),
    "two equal images": torch.ones(2, 2, 8),
    "one view": torch.randn(1, 16, 8, generator=torch.Generator().manual_seed(1)),
    "one dimension left": torch.randn(2, 16, 1, generator=torch.Generator().manual_seed(1)).expand(2, 16, 8),
}


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_stay_finite(term, edge, dtype):
    z = EDGES[edge].to(dtype).clone().requires_grad_()
    value = TERMS[term](z)
    value.backward()
    assert value.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("edge", EDGES)
def test_the_objective_stays_finite(regularizer, edge):
    z = EDGES[edge].clone().requires_grad_()
    terms = VISRegObjective(regularizer=regularizer)(z, 1, DIRECTIONS)
    terms.total.backward()
    assert all(term.isfinite() for term in terms)
    assert z.grad.isfinite().all()


def test_scale_keeps_its_gradient_as_the_embedding_collapses():
    z = torch.randn(2, 64, 8, dtype=torch.float64)
    lengths = []
    for sigma in (1e-1, 1e-3, 1e-5, 1e-9):
        small = (z * sigma).requires_grad_()
        lengths.append(torch.autograd.grad(scale_loss(small), small)[0].norm().item())
    assert lengths[1] == pytest.approx(lengths[3], rel=1e-2)
    collapsed = torch.zeros(2, 64, 8, requires_grad=True)
    assert torch.autograd.grad(scale_loss(collapsed), collapsed)[0].abs().max() == 0


@pytest.mark.parametrize("eps", [1e-6, 1e-3])
def test_eps_bounds_the_gradient_of_shape(eps):
    z = torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(0))
    unit = z.clone().requires_grad_()
    at_one = torch.autograd.grad(shape_loss(unit, DIRECTIONS), unit)[0].norm()
    for sigma in (1e-4, 1e-8, 1e-12):
        small = (z * sigma).requires_grad_()
        length = torch.autograd.grad(shape_loss(small, DIRECTIONS, eps), small)[0].norm()
        assert length < 20 * at_one / eps


@pytest.mark.parametrize("term", TERMS)
def test_half_precision_is_computed_in_float32(term):
    z = torch.randn(2, 16, 8).bfloat16()
    value = TERMS[term](z)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, TERMS[term](z.float()), rtol=0, atol=0)


@pytest.mark.parametrize("term", TERMS)
def test_autocast_changes_nothing(term):
    z = torch.randn(2, 16, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = TERMS[term](z)
    assert torch.equal(inside, TERMS[term](z))


BAD = {
    "one image": (torch.randn(2, 1, 8), "B=1"),
    "no dimension": (torch.randn(2, 16, 0), "D=0"),
    "no view": (torch.randn(0, 16, 8), "V=0"),
    "two axes": (torch.randn(16, 8), "shape"),
    "integers": (torch.ones(2, 16, 8, dtype=torch.long), "floating"),
    "NaN": (torch.full((2, 16, 8), float("nan")), "NaN"),
    "infinite": (torch.full((2, 16, 8), float("inf")), "infinite"),
    "one NaN among numbers": (torch.ones(2, 16, 8).index_fill(2, torch.tensor(3), float("nan")), "NaN"),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_unchecked_values_that_are_not_finite_reach_the_loss(value):
    z = torch.randn(2, 300, 8)
    z[1, 17, 3] = value
    assert not VISRegObjective(32, check_finite=False)(z.requires_grad_(), num_global=1).total.isfinite()


def test_a_sum_that_overflows_is_no_mistake_of_the_values():
    assert center_loss(torch.full((1, 2, 4), 1e38, dtype=torch.float64).float() * 3).isinf()  # mu^2, not a ValueError


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("bad", BAD)
def test_bad_projections_are_refused(term, bad):
    z, message = BAD[bad]
    if term == "invariance" and bad == "one image":
        assert TERMS[term](z).isfinite()  # it takes no statistics over the batch
        return
    with pytest.raises(ValueError, match=message):
        TERMS[term](z)


@pytest.mark.parametrize("loss", [shape_loss, sliced_wasserstein_loss, sigreg_loss])
@pytest.mark.parametrize(
    ("directions", "message"),
    [
        (torch.randn(7, 12), "D=8"),
        (torch.randn(8), "shape"),
        (torch.randn(8, 0), "K=0"),
        (torch.ones(8, 3, dtype=torch.long), "floating"),
        (None, "NoneType"),
    ],
)
def test_bad_directions_are_refused(loss, directions, message):
    with pytest.raises(ValueError, match=message):
        loss(torch.randn(2, 16, 8), directions)


@pytest.mark.parametrize("num_global", [0, 3, -1])
def test_num_global_is_checked(num_global):
    with pytest.raises(ValueError, match=r"1\.\.2"):
        invariance_loss(torch.randn(2, 16, 8), num_global)


@pytest.mark.parametrize(
    "options",
    [
        {"num_slices": 0},
        {"regularization_weight": 1.5},
        {"scale_weight": -1},
        {"eps": 0},
        {"regularizer": "dino"},
        {"statistics": "both"},
        {"slices": "mine"},
    ],
)
def test_bad_options_are_refused(options):
    with pytest.raises(ValueError, match="|".join(options)):
        VISRegObjective(**options)
