# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The recorded objective is the launched one, and what was handed out stays as it is.

On a CPU a computation that is done again, into the same memory, stands in for a CUDA graph.
"""

import logging

import pytest
import torch

from helpers.interpreter import INTERPRETED, run_in_the_interpreter
from visreg_training.objective import VISRegObjective, merged, recorded, sample_directions, slices
from visreg_training.objective.recorded import MOST, SEEN_BEFORE, CudaGraph, Recorder


OPTIONS = (2, 0.5, [1.0, 2.0])


class Again:
    """In place of a CUDA graph: computes again, into the memory of the first results."""

    made = 0

    def __init__(self, compute):
        Again.made += 1
        self.compute, self.outputs = compute, [output.clone() for output in compute()]

    def wait(self):
        pass

    def replay(self):
        for kept, output in zip(self.outputs, self.compute(), strict=True):
            kept.copy_(output)


class Stale(Again):
    def replay(self):
        """Nothing is computed."""


class Refused(Again):
    def __init__(self, compute):
        raise RuntimeError("operation not permitted when stream is capturing")


def compute(z, directions, num_global, eps, weights, need_gradient):
    assert need_gradient and not torch.is_grad_enabled()
    p = z @ directions
    return p.square().mean() * weights[0], p[:num_global].sum(0) + eps


def shaped(seed: int, batch: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(3, batch, 5, generator=draws), torch.randn(5, 7, generator=draws)


def call(recorder: Recorder, seed: int, batch: int = 6, options=OPTIONS) -> tuple[torch.Tensor, ...] | None:
    """What the recording gives, if there is one."""
    z, directions = shaped(seed, batch)
    with torch.no_grad():
        recording = recorder.recording(z, directions, options)
        return None if recording is None else recording(z, directions)


@pytest.mark.cpu
def test_what_comes_again_is_recorded_once_and_nothing_handed_out_changes():
    recorder, before = Recorder(compute, Again), Again.made
    assert [call(recorder, seed) for seed in range(SEEN_BEFORE)] == [None] * SEEN_BEFORE
    found = {seed: call(recorder, seed) for seed in range(10, 14)}
    assert Again.made == before + 1
    for seed, values in found.items():
        expected = torch.no_grad()(compute)(*shaped(seed), *OPTIONS, True)
        torch.testing.assert_close(values, expected, rtol=0, atol=0)


@pytest.mark.cpu
@pytest.mark.parametrize("graph", [Stale, Refused])
def test_a_graph_that_is_refused_or_wrong_is_not_used_and_not_tried_again(graph, caplog):
    recorder = Recorder(compute, graph)
    with caplog.at_level(logging.WARNING):
        assert [call(recorder, seed) for seed in range(SEEN_BEFORE + 5)] == [None] * (SEEN_BEFORE + 5)
    assert len(caplog.records) == 1 and "CUDA graph" in caplog.text and "\n" not in caplog.messages[0]


@pytest.mark.cpu
def test_few_shapes_are_kept_and_large_ones_are_not_recorded(monkeypatch):
    recorder = Recorder(compute, Again)
    for batch in range(2, 2 + MOST + 3):
        for seed in range(SEEN_BEFORE + 1):
            call(recorder, seed, batch)
    assert len(recorder.recordings) == MOST
    monkeypatch.setattr(recorded, "LARGEST", 3 * 6 * 5 + 5 * 7 - 1)
    another = Recorder(compute, Again)
    assert [call(another, seed) for seed in range(SEEN_BEFORE + 2)] == [None] * (SEEN_BEFORE + 2)


@pytest.mark.cpu
def test_a_weight_that_changes_with_every_step_takes_no_memory(monkeypatch):
    monkeypatch.setattr(recorded, "FORGET_AFTER", 8)
    recorder = Recorder(compute, Again)
    for step in range(50):
        assert call(recorder, 0, options=(2, 0.5, [step / 50, 1.0])) is None
    assert len(recorder.seen) <= 9


# With the kernels: in the interpreter with the stand-in, on a GPU with CUDA's graphs.


@pytest.mark.cpu
@pytest.mark.skipif(INTERPRETED, reason="this is it")
def test_in_the_interpreter():
    pytest.importorskip("triton", reason="the kernels need Triton")
    run_in_the_interpreter(__file__)


WITH_KERNELS = pytest.mark.cpu if INTERPRETED else pytest.mark.gpu
DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.fixture
def kernels(monkeypatch):
    """A recorder of this test's own. One call is enough, so that the interpreter has little to do."""
    monkeypatch.setattr(recorded, "SEEN_BEFORE", 0)
    monkeypatch.setattr(merged, "recorder", Recorder(merged.compute_terms, Again if INTERPRETED else CudaGraph))
    if INTERPRETED:
        from visreg_training.objective.kernels.fused import rows

        monkeypatch.setattr(rows, "NUMBERS", 1 << 14)  # it runs one program after the other
        monkeypatch.setattr(recorded, "usable", lambda z: True)
    return merged.recorder


def projections(seed: int, dtype=torch.float32, batch: int = 16) -> torch.Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randn(4, batch, 20, generator=draws).to(DEVICE, dtype).requires_grad_()


def directions() -> torch.Tensor:
    return sample_directions(20, 12, torch.Generator().manual_seed(1), device="cpu").to(DEVICE)


def terms_and_gradient(z, w, of_shape: float = 0.0) -> list[torch.Tensor]:
    terms = VISRegObjective(w.shape[1], check_finite=False)(z, 2, w)
    loss = 1024 * (terms.total + of_shape * terms.shape)  # scaled, as half precision needs it
    (gradient,) = torch.autograd.grad(loss, z)
    return [*(term.detach() for term in terms), gradient]


def launched(z, w, of_shape: float = 0.0) -> list[torch.Tensor]:
    """The same without a recording."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "usable", lambda z: False)
        return terms_and_gradient(z, w, of_shape)


@WITH_KERNELS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("of_shape", [0.0, 2.0])
def test_terms_and_gradients_are_those_of_the_kernels(kernels, dtype, of_shape):
    w = directions()
    for seed in range(3):
        z = projections(seed, dtype)
        torch.testing.assert_close(terms_and_gradient(z, w, of_shape), launched(z, w, of_shape), rtol=1e-6, atol=1e-9)
    assert [recording is not None for recording in kernels.recordings.values()] == [True]


@WITH_KERNELS
def test_two_forwards_before_their_backwards_and_a_loss_changed_in_place(kernels):
    w, first, second = directions(), projections(10), projections(11)
    objective = VISRegObjective(12, check_finite=False)
    losses = [objective(z, 2, w).total for z in (first, second)]
    for loss in reversed(losses):
        loss /= 4
        loss.backward()
    for z in (first, second):
        expected = launched(z.detach().requires_grad_(), w)[-1] / 1024 / 4
        torch.testing.assert_close(z.grad, expected, rtol=1e-5, atol=1e-9)
    assert len(kernels.recordings) == 1


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="CUDA's memory")
def test_the_quantiles_of_a_recording_outlive_their_cache(kernels):
    w, z = directions(), projections(0)
    expected = terms_and_gradient(z, w)
    slices._quantiles.cache_clear()
    nines = [torch.full((16,), 9.0, device=z.device) for _ in range(200)]  # where they lay, were they freed
    torch.testing.assert_close(terms_and_gradient(z, w), expected, rtol=0, atol=0)
    del nines


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="CUDA's streams")
def test_another_stream_waits_for_the_last_one(kernels):
    w = directions()
    terms_and_gradient(projections(0), w)
    zs, results = [projections(seed) for seed in range(20, 24)], []
    torch.cuda.synchronize()
    for number, z in enumerate(zs):
        with torch.cuda.stream(torch.cuda.Stream()):
            torch.cuda._sleep(10_000_000 * (number % 2))
            results.append(terms_and_gradient(z, w))
    torch.cuda.synchronize()
    for z, result in zip(zs, results, strict=True):
        torch.testing.assert_close(result, launched(z, w), rtol=1e-6, atol=1e-9)


@pytest.mark.gpu
@pytest.mark.skipif(INTERPRETED, reason="CUDA's graphs")
def test_within_a_capture_of_ones_own_nothing_is_recorded(kernels):
    w, z = directions(), projections(0).detach()
    expected = [launched(z.requires_grad_(), w) for _ in range(2)][-1]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = terms_and_gradient(z, w)
    graph.replay()
    torch.testing.assert_close(captured, expected, rtol=1e-6, atol=1e-9)
    assert not kernels.recordings
