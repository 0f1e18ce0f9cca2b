# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The module: how the terms are combined, where directions come from, and what it is imported with."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import visreg_training.objective
from benchmarks import plain
from visreg_training.objective import (
    REGULARIZERS,
    VISRegObjective,
    VISRegTerms,
    barlow_twins_loss,
    center_loss,
    draw_directions,
    effective_rank,
    embedding_diagnostics,
    invariance_loss,
    rank_share,
    sample_directions,
    scale_loss,
    shape_loss,
    sigreg_loss,
    sliced_wasserstein_loss,
    vicreg_loss,
)
from visreg_training.objective.regularizers import TABLE


Z = torch.randn(3, 32, 8, generator=torch.Generator().manual_seed(0))
DIRECTIONS = sample_directions(8, 20, torch.Generator().manual_seed(1))


def test_the_total_is_the_weighted_sum():
    weights = {"regularization_weight": 0.7, "scale_weight": 2, "shape_weight": 3, "center_weight": 5}
    terms = VISRegObjective(**weights)(Z, 2, DIRECTIONS)
    regularizer = 2 * scale_loss(Z) + 3 * shape_loss(Z, DIRECTIONS) + 5 * center_loss(Z)
    torch.testing.assert_close(terms.regularizer, regularizer)
    torch.testing.assert_close(terms.total, 0.7 * regularizer + 0.3 * invariance_loss(Z, 2))
    parts = (terms.invariance, terms.center, terms.scale, terms.shape)
    expected = (invariance_loss(Z, 2), center_loss(Z), scale_loss(Z), shape_loss(Z, DIRECTIONS))
    torch.testing.assert_close(parts, expected)


BASELINES = {
    "sigreg": lambda z: sigreg_loss(z, DIRECTIONS),
    "swd": lambda z: sliced_wasserstein_loss(z, DIRECTIONS),
    "vicreg": vicreg_loss,
    "barlow": barlow_twins_loss,
}


@pytest.mark.parametrize("name", BASELINES)
def test_another_regularizer_in_the_same_frame(name):
    assert {*BASELINES, "visreg"} == set(REGULARIZERS)
    objective = VISRegObjective(regularizer=name, regularization_weight=0.6)
    terms = objective(Z.clone().requires_grad_(), 2, DIRECTIONS)
    torch.testing.assert_close(terms.regularizer.detach(), BASELINES[name](Z))
    torch.testing.assert_close(terms.total.detach(), 0.6 * BASELINES[name](Z) + 0.4 * invariance_loss(Z, 2))
    ours = plain.gradient(lambda z: objective(z, 2, DIRECTIONS).total, Z)
    expected = plain.gradient(lambda z: 0.6 * BASELINES[name](z) + 0.4 * invariance_loss(z, 2), Z)
    torch.testing.assert_close(ours, expected)
    diagnostics_only = plain.gradient(lambda z: (t := objective(z, 2, DIRECTIONS)).shape + t.scale + 0 * t.total, Z)
    assert diagnostics_only.abs().max() == 0


def test_directions_are_a_function_of_seed_and_step():
    first = VISRegObjective(16, seed=3)(Z, 2, step=5)
    assert VISRegObjective(16, seed=3)(Z, 2, step=5) == first
    assert VISRegObjective(16, seed=3)(Z, 2, step=6).shape != first.shape
    assert VISRegObjective(16, seed=4)(Z, 2, step=5).shape != first.shape


def test_without_a_step_directions_come_from_the_global_generator():
    objective = VISRegObjective(16)
    torch.manual_seed(0)
    first, second = objective(Z, 2), objective(Z, 2)
    torch.manual_seed(0)
    assert objective(Z, 2) == first
    assert first.shape != second.shape


def test_directions_are_unit_columns():
    directions = sample_directions(16, 100, dtype=torch.float64)
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(100, dtype=torch.float64))
    with pytest.raises(ValueError, match="num_slices"):
        sample_directions(16, 0)


@pytest.mark.parametrize(("num_slices", "world"), [(64, 1), (64, 4), (10, 3), (7, 7)])
def test_the_parts_of_shared_slices_are_the_whole(num_slices, world):
    whole = draw_directions(8, num_slices, 1, 2).directions
    parts = [draw_directions(8, num_slices, 1, 2, rank=rank, world=world) for rank in range(world)]
    assert torch.equal(torch.cat([part.directions for part in parts], dim=1), whole)
    assert sum(part.share for part in parts) == pytest.approx(world)
    sizes = [part.directions.shape[1] for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_slices_per_rank_differ_between_ranks():
    own = [draw_directions(8, 10, 1, 2, slices="per_rank", rank=rank, world=2) for rank in range(2)]
    assert all(part.directions.shape == (8, 10) and part.share == 1 for part in own)
    assert not torch.equal(own[0].directions, own[1].directions)


def test_more_processes_than_slices_is_refused():
    with pytest.raises(ValueError, match="at least 4"):
        rank_share(3, 0, 4)


def test_effective_rank_of_known_matrices():
    generator = torch.Generator().manual_seed(0)
    orthogonal = torch.linalg.qr(torch.randn(64, 16, generator=generator)).Q
    assert effective_rank(orthogonal).item() == pytest.approx(16, rel=1e-4)
    assert effective_rank(orthogonal[:, :1].expand(-1, 8)).item() == pytest.approx(1, abs=0.01)
    assert effective_rank(torch.zeros(8, 4)) == 0
    few = torch.randn(8, 100, generator=generator)
    singular = torch.linalg.svdvals(few.double())
    share = singular / singular.sum()
    assert effective_rank(few).item() == pytest.approx((-(share * share.log()).sum()).exp().item(), rel=1e-5)


def test_diagnostics():
    values = embedding_diagnostics(Z, torch.randn(3, 32, 12))
    assert set(values) == {"sigma_min", "sigma_mean", "projection_rank", "feature_rank"}
    sigma = Z.std(1, unbiased=False)
    torch.testing.assert_close(values["sigma_min"], sigma.min() + 1e-6)
    torch.testing.assert_close(values["sigma_mean"], sigma.mean() + 1e-6)
    assert all(value.dim() == 0 and not value.requires_grad for value in values.values())
    for wrong in ((Z[0], None), (Z, torch.randn(32, 12))):
        with pytest.raises(ValueError, match=r"must be \(views, images, dimension\), not \(32, .*one view: x\[None\]"):
            embedding_diagnostics(*wrong)


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_compiles_as_one_graph(regularizer):
    objective = VISRegObjective(20, regularizer=regularizer)
    compiled = torch.compile(objective, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(Z, 2, DIRECTIONS), objective(Z, 2, DIRECTIONS))


def test_it_holds_nothing_to_save():
    objective = VISRegObjective()
    assert not list(objective.parameters())
    assert not objective.state_dict()
    assert isinstance(objective(Z, 2, DIRECTIONS), VISRegTerms)


def test_options_and_titles_come_without_torch():
    program = (
        "import sys; from visreg_training.objective.options import ObjectiveOptions; "
        "from visreg_training.objective.regularizers import TABLE; "
        "print(ObjectiveOptions().regularizer, TABLE['barlow'].title, 'torch' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "visreg Barlow Twins False"


def test_no_public_name_is_hidden_by_a_file():
    files = {path.stem for path in Path(visreg_training.objective.__file__).parent.iterdir()}
    assert not files & set(visreg_training.objective.__all__)
    assert all(hasattr(visreg_training.objective, name) for name in visreg_training.objective.__all__)
    assert not hasattr(visreg_training.objective, "no_such_name")


@pytest.mark.parametrize("name", TABLE)
def test_every_regularizer_of_the_table_is_the_one_that_trains(name):
    objective = VISRegObjective(20, regularizer=name)
    assert torch.equal(objective(Z, 2, DIRECTIONS).regularizer, TABLE[name].load()(Z, DIRECTIONS))
    pickle.loads(pickle.dumps(objective))


def test_the_import_is_light():
    program = (
        "import sys; from visreg_training.objective import VISRegObjective; "
        "print([m for m in ('transformers', 'datasets', 'accelerate', 'torchvision') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("regularizer", REGULARIZERS)
def test_without_the_check_what_is_not_finite_reaches_the_loss(regularizer):
    """The loop's guard looks at the loss; the kernels, sorts included, must not hide a NaN from it."""
    z = torch.randn(2, 8, 4)
    z[0, 3, 1] = torch.nan
    objective = VISRegObjective(num_slices=16, regularizer=regularizer, check_finite=False)
    assert not objective(z.requires_grad_(), 1).total.isfinite()
    with pytest.raises(ValueError, match="NaN"):
        VISRegObjective(num_slices=16, regularizer=regularizer)(z, 1)
