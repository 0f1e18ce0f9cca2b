# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Real processes over gloo: the gather with its gradient, and N processes against one with the whole batch."""

import pytest
import torch

from helpers import fork_server, objective_on_ranks
from helpers.objective_on_ranks import trained
from visreg_training.objective import VISRegObjective, draw_directions, gather_batch


pytestmark = pytest.mark.cpu

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(3, 24, 12, generator=GENERATOR)
WEIGHT = torch.randn(8, 12, generator=GENERATOR) / 3
WEIGHTS = torch.randn(3, 24, 12, generator=GENERATOR)
OPTIONS = [
    {"num_slices": 30},
    {"num_slices": 31},  # not divisible by 2 or 4
    {"num_slices": 31, "regularizer": "swd"},
    {"num_slices": 31, "regularizer": "sigreg"},
    {"num_slices": 31, "regularizer": "vicreg"},
    {"num_slices": 31, "regularizer": "barlow"},
    {"num_slices": 30, "slices": "per_rank"},
    {"num_slices": 30, "statistics": "local"},
]
CASE = [{"job": "gather", "x": X, "weights": WEIGHTS}]
CASE += [{"job": "train", "x": X, "weight": WEIGHT, "options": options} for options in OPTIONS]


@pytest.fixture(scope="module", params=[2, 4])
def ranks(request, tmp_path_factory) -> list:
    """What each of N processes returned for each job of CASE."""
    folder, world = tmp_path_factory.mktemp("ranks"), request.param
    torch.save(CASE, folder / "case.pt")
    fork_server.run(folder, script=objective_on_ranks.__file__, ranks=world).check_returncode()
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(world)]


def test_gather_returns_the_whole_batch_and_sums_gradients(ranks):
    for rank, results in enumerate(ranks):
        assert torch.equal(results[0]["whole"], X)
        expected = WEIGHTS.chunk(len(ranks), dim=1)[rank] * sum(range(1, len(ranks) + 1))
        torch.testing.assert_close(results[0]["grad"], expected)


@pytest.mark.parametrize("job", range(1, 7))
def test_processes_with_shared_slices_equal_one_process(ranks, job):
    alone = trained(CASE[job], 0, 1)
    for results in ranks:
        torch.testing.assert_close(results[job]["terms"], alone["terms"], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(results[job]["grad"], alone["grad"], rtol=1e-5, atol=1e-6)


def per_rank_reference(world: int) -> torch.Tensor:
    """The mean over ranks of the objective on the whole batch with each rank's own directions."""
    objective = VISRegObjective(30)
    totals = []
    for rank in range(world):
        directions = draw_directions(8, 30, 0, 3, slices="per_rank", rank=rank, world=world).directions
        totals.append(torch.stack(objective(X @ WEIGHT.T, 2, directions)))
    return torch.stack(totals).mean(0)


def test_per_rank_slices_give_the_mean_over_ranks(ranks):
    expected = per_rank_reference(len(ranks))
    for results in ranks:
        torch.testing.assert_close(results[7]["terms"], expected, rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(results[7]["grad"], ranks[0][7]["grad"], rtol=0, atol=0)


def test_local_statistics_differ_and_are_reported_alike(ranks):
    alone = trained(CASE[8], 0, 1)["terms"]
    assert (ranks[0][8]["terms"] - alone).abs().max() > 1e-4
    for results in ranks:
        assert torch.equal(results[8]["terms"], ranks[0][8]["terms"])


def test_without_a_process_group_nothing_is_gathered():
    assert gather_batch(X) is X
    assert VISRegObjective(8).draw_directions(12, None).share == 1
