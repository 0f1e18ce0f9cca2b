# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Whole runs and their views on the CPU and on a GPU: by the same code, and what only a GPU shows."""

import json
from contextlib import closing
from pathlib import Path

import pytest
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from helpers import forked
from visreg_training.data import DeviceAugment, MultiCrop, PretrainingLoader, open_stream
from visreg_training.loop.views import StepAugment
from visreg_training.pretrain import pretrain


pytestmark = pytest.mark.parametrize(
    "device", [pytest.param("cpu", marks=pytest.mark.cpu), pytest.param("cuda", marks=pytest.mark.gpu)]
)
RUN = forked.SMALL | {"eval_split": None, "log_every": 1, "keep_last": 9, "max_steps": 6, "save_every": 3}


def trained(folder: Path, device: str, **options) -> list[float]:
    """The losses of a run, which was on this device."""
    pretrain(**RUN | options, output_dir=str(folder))
    assert PartialState().device.type == device
    return [json.loads(line)["total"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_a_run_resumes(device, tmp_path):
    """On the CPU bit for bit; kernels of a GPU add in an order of their own, and AdamW makes steps of that."""
    whole = trained(tmp_path / "whole", device, mixed_precision="no")
    forked.copy_until(tmp_path / "whole", tmp_path / "half", 3)
    resumed = trained(tmp_path / "half", device, mixed_precision="no", resume="auto")
    tolerance = 0 if device == "cpu" else 5e-3
    assert len(whole) == 6 and resumed == pytest.approx(whole, rel=tolerance, abs=0)
    first, second = (load_file(tmp_path / name / "pretraining" / "model.safetensors") for name in ("whole", "half"))
    for name, weight in first.items():
        assert (second[name] - weight).double().norm() <= 4 * tolerance * weight.double().norm(), name


def test_bfloat16_is_what_a_gpu_takes_by_itself_and_learns_the_same(device, tmp_path):
    exact = trained(tmp_path / "exact", device, mixed_precision="no")
    half = trained(tmp_path / "half", device, mixed_precision="auto" if device == "cuda" else "bf16")
    assert half[0] == pytest.approx(exact[0], rel=3e-2) and half[0] != exact[0]
    assert half == pytest.approx(exact, rel=0.1)  # AdamW makes steps of what is rounding at first
    weights = load_file(tmp_path / "half" / "pretraining" / "model.safetensors")
    assert all(weight.dtype == torch.float32 for weight in weights.values() if weight.is_floating_point())


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
