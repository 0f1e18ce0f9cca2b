# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The recorded objective is the launched one, bit for bit, and what was handed out stays as it is."""

import pytest
import torch

from visreg_training.objective import VISRegObjective, merged, recorded, sample_directions
from visreg_training.objective.recorded import Recorder


pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No recordings of other tests, and none of this one for others."""
    monkeypatch.setattr(merged, "recorder", Recorder(merged.compute_terms, merged.compute_gradient))


def projections(seed: int, batch=64) -> torch.Tensor:
    draws = torch.Generator("cuda").manual_seed(seed)
    return torch.randn(4, batch, 96, generator=draws, device="cuda").requires_grad_()


def launched(monkeypatch, z, directions, weights=(1.0, 0.0)) -> list[torch.Tensor]:
    """Terms and gradient without a recording."""
    with monkeypatch.context() as patch:
        patch.setattr(merged, "recorder", type("None", (), {"recording": staticmethod(lambda *_: None)}))
        return found(z, directions, weights)


def found(z, directions, weights=(1.0, 0.0)) -> list[torch.Tensor]:
    """Terms, and the gradient of a weighted sum of the total and of shape."""
    terms = VISRegObjective(directions.shape[1], check_finite=False)(z, 2, directions)
    loss = weights[0] * terms.total + (weights[1] * terms.shape if weights[1] else 0)
    return [*(term.detach() for term in terms), *torch.autograd.grad(loss, z)]


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.3, 0.0), (1.0, 2.0)])
def test_a_recording_gives_the_same_bits(monkeypatch, weights):
    for seed in range(recorded.SEEN_BEFORE + 4):
        z, directions = projections(seed), sample_directions(96, 256, device="cuda")
        expected = launched(monkeypatch, z, directions, weights)
        for one, other in zip(found(z, directions, weights), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)
    assert next(iter(merged.recorder.recordings.values())) is not None


def test_two_forwards_before_their_backwards(monkeypatch):
    directions = sample_directions(96, 256, device="cuda")
    for seed in range(recorded.SEEN_BEFORE + 1):
        found(projections(seed), directions)
    first, second = projections(10), projections(11)
    objective = VISRegObjective(256, check_finite=False)
    terms = [objective(z, 2, directions) for z in (first, second)]
    for term in reversed(terms):
        term.total.backward()
    for z in (first, second):
        expected = launched(monkeypatch, z.detach().requires_grad_(), directions)
        torch.testing.assert_close(z.grad, expected[-1], rtol=0, atol=0)


def test_another_stream_waits_for_the_last_one(monkeypatch):
    directions = sample_directions(96, 256, device="cuda")
    for seed in range(recorded.SEEN_BEFORE + 1):
        found(projections(seed), directions)
    zs, results = [projections(seed) for seed in range(20, 24)], []
    torch.cuda.synchronize()
    for number, z in enumerate(zs):
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(10_000_000 * (number % 2))
            results.append(found(z, directions))
    torch.cuda.synchronize()
    for z, result in zip(zs, results, strict=True):
        torch.testing.assert_close(result, launched(monkeypatch, z, directions), rtol=0, atol=0)


def test_only_so_many_shapes_are_kept():
    directions = sample_directions(96, 64, device="cuda")
    for batch in range(16, 16 + recorded.KEPT + 3):
        for seed in range(recorded.SEEN_BEFORE + 2):
            found(projections(seed, batch), directions)
    assert len(merged.recorder.recordings) == recorded.KEPT


def test_within_a_capture_of_ones_own_nothing_is_recorded(monkeypatch):
    directions, z = sample_directions(96, 256, device="cuda"), projections(0)
    for _ in range(recorded.SEEN_BEFORE + 2):
        expected = found(z, directions)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = found(z, directions)
    graph.replay()
    torch.testing.assert_close(captured, expected, rtol=0, atol=0)
