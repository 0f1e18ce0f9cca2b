# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The fused colors are those of torch's operations: in Triton's interpreter, and on a GPU at the sizes of a run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from visreg_training.data import DeviceAugment
from visreg_training.data.color.fused import runs_fused
from visreg_training.triton_support import has_triton


@pytest.mark.cpu
@pytest.mark.skipif(not has_triton(), reason="needs Triton, which comes with torch for CUDA on Linux")
def test_each_operation_each_order_and_all_together_in_the_interpreter():
    script = Path(__file__).with_name("interpreted.py")
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    run = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    assert len(found) == 12 and {name: error for name, error in found.items() if not error < 2e-5} == {}


@pytest.mark.cpu
def test_a_cpu_keeps_the_operations_of_torch():
    assert not runs_fused([torch.zeros(1, 3, 8, 8, dtype=torch.uint8)], DeviceAugment().options)


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}])
def test_a_gpu_gives_what_the_cpu_gives(options):
    groups = [torch.randint(0, 256, (32, 3, side, side), dtype=torch.uint8) for side in (224, 96)]
    augment = DeviceAugment(solarize_probability=0.5, **options)
    right = augment.color(groups, torch.Generator().manual_seed(0))
    made = augment.color([group.cuda() for group in groups], torch.Generator().manual_seed(0))
    for ours, theirs in zip(made, right, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=0, atol=1e-4)
