# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The terms as one operator against torch's operations in float64, and what it launches."""

import pytest
import torch
from packaging.version import Version

from benchmarks import plain
from helpers.interpreter import DEVICE, INTERPRETED, ON_DEVICE, run_in_the_interpreter
from helpers.launches import counted_launches
from visreg_training.objective import VISRegObjective, VISRegTerms, sample_directions
from visreg_training.objective.merged import takes


triton = pytest.importorskip("triton", reason="the kernels need Triton")
# V, B, D, K, global views
SIZES = [(1, 2, 1, 1, 1), (3, 5, 7, 9, 1), (4, 64, 33, 20, 2), (2, 300, 17, 5, 2), (3, 9, 20, 6, 3)]
WEIGHTS = {"regularization_weight": 0.7, "scale_weight": 2, "shape_weight": 3, "center_weight": 5}


@pytest.mark.cpu
def test_in_the_interpreter():
    run_in_the_interpreter(__file__)


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch):
    """The interpreter runs one program after the other."""
    from visreg_training.objective.kernels.fused import rows

    if INTERPRETED:
        monkeypatch.setattr(rows, "NUMBERS", 1 << 14)


def projections(views=3, batch=9, dim=20, offset=3.0):
    return torch.randn(views, batch, dim, generator=torch.Generator().manual_seed(0)) * 1.5 + offset


def directions(dim=20, slices=6):
    return sample_directions(dim, slices, torch.Generator().manual_seed(1), device="cpu")


def terms_of(z, w, num_global=2, **options) -> tuple[VISRegTerms, VISRegTerms, torch.Tensor, torch.Tensor]:
    """The terms by the kernels and by torch in float64, and what each is a function of."""
    right = z.double().requires_grad_()
    ours = z.to(DEVICE).clone(memory_format=torch.preserve_format).requires_grad_()
    assert takes(ours) and not takes(right)
    objective = VISRegObjective(w.shape[1], check_finite=False, **WEIGHTS | options)
    found = objective(ours, num_global, w.to(DEVICE), share=0.5)
    return found, objective(right, num_global, w.double(), share=0.5), ours, right


@ON_DEVICE
@pytest.mark.parametrize("size", SIZES)
def test_each_term_equals_float64_and_has_a_gradient_of_its_own(size):
    views, batch, dim, slices, num_global = size
    found, right, z, reference = terms_of(projections(views, batch, dim), directions(dim, slices), num_global)
    for name, ours, theirs in zip(found._fields, found, right, strict=True):
        assert ours.dtype == torch.float32 and ours.shape == ()
        torch.testing.assert_close(ours.cpu().double(), theirs, rtol=2e-6, atol=1e-12, msg=name)
        gradients = [torch.autograd.grad(*pair, retain_graph=True)[0] for pair in ((ours, z), (theirs, reference))]
        torch.testing.assert_close(
            gradients[0].cpu().double(), gradients[1], rtol=2e-5, atol=2e-5 * gradients[1].abs().max(), msg=name
        )


@ON_DEVICE
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_at_the_end_only(dtype):
    found, right, z, reference = terms_of(projections().to(dtype), directions())
    torch.testing.assert_close(found.total.cpu().double(), right.total, rtol=2e-6, atol=0)
    found.total.backward()
    right.total.backward()
    assert z.grad.dtype == dtype
    assert torch.equal(z.grad.cpu().isfinite(), torch.ones(z.shape, dtype=torch.bool))
    assert plain.relative_error(z.grad.cpu(), reference.grad) < torch.finfo(dtype).eps


@ON_DEVICE
def test_terms_are_put_together_as_one_likes():
    found, right, z, reference = terms_of(projections(), directions())
    for terms in (found, right):
        (terms.total * 2 + terms.shape.square() - terms.scale * terms.invariance).backward(retain_graph=True)
        terms.center.backward()
    assert plain.relative_error(z.grad.cpu(), reference.grad) < 1e-6


@ON_DEVICE
def test_a_view_of_another_layout():
    z = projections()
    found, right, ours, reference = terms_of(z.transpose(1, 2).contiguous().transpose(1, 2), directions())
    gradient = torch.autograd.grad(found.total, ours)[0]
    assert plain.relative_error(gradient.cpu(), torch.autograd.grad(right.total, reference)[0]) < 1e-6


@ON_DEVICE
@pytest.mark.parametrize("spread", [0, 1e-8, 1e-4])
def test_at_collapse(spread):
    """At sigma = 0 the gradient of scale is 0; close to it that of shape grows, and both stay right."""
    z = 0.3 + spread * projections(offset=0.0)
    found, right, ours, reference = terms_of(z, directions())
    for name in ("scale", "shape", "center"):
        gradient = torch.autograd.grad(getattr(found, name), ours, retain_graph=True)[0].cpu().double()
        expected = torch.autograd.grad(getattr(right, name), reference, retain_graph=True)[0]
        assert gradient.isfinite().all()
        if name != "scale" and spread != 1e-8:  # there the last bit of z is what is measured
            assert (gradient.norm() / expected.norm()).item() == pytest.approx(1, rel=1e-2)
        if name == "scale":
            assert (gradient.abs().max() == 0) == (spread == 0)


@ON_DEVICE
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_reaches_the_loss(bad):
    z = projections()
    z[1, 4, 3] = bad
    found = terms_of(z, directions())[0]
    assert not found.total.isfinite() and not found.center.isfinite() and not found.invariance.isfinite()


@ON_DEVICE
def test_without_gradient_the_values_are_the_same():
    z, w = projections().to(DEVICE), directions().to(DEVICE)
    objective = VISRegObjective(6)
    with torch.no_grad():
        quiet = objective(z.requires_grad_(), 2, w)
    assert not quiet.total.requires_grad
    assert torch.equal(torch.stack(quiet), torch.stack(objective(z, 2, w)).detach())


@ON_DEVICE
def test_a_second_differentiation_raises():
    found, _, z, _ = terms_of(projections(), directions())
    with pytest.raises(RuntimeError, match="once"):
        torch.autograd.grad(found.center, z, create_graph=True)


@ON_DEVICE
@pytest.mark.parametrize("name", ["total", "shape"])
def test_compiles_as_one_graph(name):
    objective, w = VISRegObjective(6), directions().to(DEVICE)

    def loss(z):
        return getattr(objective(torch.tanh(z), 2, w), name)

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    z = projections().to(DEVICE)
    torch.testing.assert_close(plain.gradient(compiled, z), plain.gradient(loss, z))


@ON_DEVICE
@pytest.mark.skipif(Version(triton.__version__) < Version("3.6"), reason="the counter looks into Triton from 3.6 on")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_launches(dtype):
    objective = VISRegObjective(6, check_finite=False)
    z = projections().to(DEVICE, dtype).requires_grad_()
    objective(z, 2, step=3)  # the quantiles are computed once
    with counted_launches() as launches:
        objective(z, 2, step=3).total.backward()
    assert len(launches) <= 9, launches.names


@ON_DEVICE
@pytest.mark.parametrize("size", [(1, 1), (20, 6), (70, 33)])
def test_directions_have_length_1(size):
    w = sample_directions(*size, torch.Generator(DEVICE).manual_seed(0))
    drawn = torch.randn(*size, generator=torch.Generator(DEVICE).manual_seed(0), device=DEVICE)
    torch.testing.assert_close(w, drawn / drawn.norm(dim=0), rtol=1e-6, atol=0)


@ON_DEVICE
def test_what_the_kernels_do_not_take():
    assert takes(torch.empty(1, 8192, 1, device=DEVICE))
    assert not takes(torch.empty(1, 8193, 1, device=DEVICE))
    assert not takes(torch.empty(1, 2, 1, device=DEVICE, dtype=torch.float64))
    assert not takes(torch.empty(1, 2, 1, device="meta"))
