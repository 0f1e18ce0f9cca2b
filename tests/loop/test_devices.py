# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Whole runs and their views on the CPU and on a GPU: by the same code, and what only a GPU shows."""

import json
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from helpers import forked
from visreg_training.data import DeviceAugment, MultiCrop, PretrainingLoader, open_stream
from visreg_training.loop.views import StepAugment
from visreg_training.pretrain import pretrain


CPU, CUDA = pytest.param("cpu", marks=pytest.mark.cpu), pytest.param("cuda", marks=pytest.mark.gpu)
ON_BOTH = pytest.mark.parametrize("device", [CPU, CUDA])
# What compiled blocks change is the last test's.
RUN = forked.SMALL | {"eval_split": None, "log_every": 1, "keep_last": 9, "compile": "no", "mixed_precision": "no"}
RUN |= {"max_steps": 6, "save_every": 3}
# Whose gradient is zero but for rounding, which AdamW makes whole steps of: adding the same to every key changes no
# attention, and the batch norm takes away again what is added to every image.
WITHOUT_GRADIENT = ("k_proj.bias", "vit.layernorm.bias", "projector.0.bias", "projector.3.bias")


def trained(folder: Path, device: str, **options) -> list[float]:
    """The losses of a run, which was on this device."""
    pretrain(**RUN | options, output_dir=str(folder))
    assert PartialState().device.type == device
    return [json.loads(line)["total"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def resumed(folder: Path, device: str) -> dict[str, float]:
    """How far a run that goes on from its middle ends from one that was never interrupted, by what differs."""
    whole = trained(folder / "whole", device)
    forked.copy_until(folder / "whole", folder / "half", 3)
    half = trained(folder / "half", device, resume="auto")
    assert len(whole) == len(half) == 6
    apart = {f"loss {step}": abs(a - b) / abs(a) for step, (a, b) in enumerate(zip(whole, half, strict=True))}
    first, second = (load_file(folder / name / "pretraining" / "model.safetensors") for name in ("whole", "half"))
    for name, weight in first.items():
        apart[name] = ((second[name] - weight).double().norm() / weight.double().norm()).item()
    return {name: value for name, value in apart.items() if value > 0}


@pytest.mark.cpu
def test_a_run_resumes_bit_for_bit_on_a_cpu(tmp_path):
    assert resumed(tmp_path, "cpu") == {}


@pytest.mark.gpu
def test_a_run_resumes_on_a_gpu(tmp_path):
    """Attention's backward adds in an order of its own. Without AdamW's moments weights end 0.03 to 0.5 apart."""
    apart = resumed(tmp_path, "cuda")
    far = {name: value for name, value in apart.items() if not name.endswith(WITHOUT_GRADIENT) and value > 5e-3}
    assert far == {}


@contextmanager
def deterministic_algorithms(monkeypatch) -> Iterator[None]:
    """What has no such algorithm warns and goes on."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
def test_deterministic_algorithms_resume_bit_for_bit_on_a_gpu(monkeypatch, tmp_path):
    """Our kernels in Triton add in a fixed order, without atomic operations."""
    with deterministic_algorithms(monkeypatch):
        assert resumed(tmp_path, "cuda") == {}


@ON_BOTH
def test_bfloat16_is_what_a_gpu_takes_by_itself_and_learns_the_same(device, tmp_path):
    exact = trained(tmp_path / "exact", device)
    half = trained(tmp_path / "half", device, mixed_precision="auto" if device == "cuda" else "bf16")
    assert half[0] == pytest.approx(exact[0], rel=3e-2) and half[0] != exact[0]
    assert half == pytest.approx(exact, rel=0.1)  # AdamW makes steps of what is rounding at first
    weights = load_file(tmp_path / "half" / "pretraining" / "model.safetensors")
    assert all(weight.dtype == torch.float32 for weight in weights.values() if weight.is_floating_point())


@ON_BOTH
def test_views_are_pinned_for_a_gpu_and_colored_the_same(device):
    """All random numbers come from the CPU, so the colors of a step are those of every device."""
    loader = PretrainingLoader(open_stream("digits"), MultiCrop(2, 2, 16, 8), batch_size=8, num_workers=1)
    with closing(loader):
        batch = next(loader)
    assert all(group.is_pinned() == (device == "cuda") for group in batch.views)
    made, right = (StepAugment(DeviceAugment(), torch.device(kind), 0, 0)(batch.views, 1) for kind in (device, "cpu"))
    for ours, theirs in zip(made, right, strict=True):
        assert ours.device.type == device
        torch.testing.assert_close(ours.cpu(), theirs, rtol=0, atol=1e-4)


@pytest.mark.gpu
def test_compiled_blocks_learn_on_a_gpu_what_plain_ones_do(tmp_path):
    """In float32, with the compiler of the system, and drop path."""
    plain, compiled = (trained(tmp_path / mode, "cuda", compile=mode) for mode in ("no", "blocks"))
    assert compiled == pytest.approx(plain, rel=5e-3, abs=0)
