# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The fused colors are those of torch's operations: in Triton's interpreter, and on a GPU at the sizes of a run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from visreg_training.compat import traces_transformers
from visreg_training.data import DeviceAugment
from visreg_training.data.color import device as device_module
from visreg_training.data.color.fused import runs_fused
from visreg_training.loop import views as views_module
from visreg_training.loop.views import StepAugment
from visreg_training.triton_support import has_triton


MOST_LAUNCHES = 40


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


class CudaOperations(TorchDispatchMode):
    """Names of the operations with a CUDA tensor in them, but for those that only allocate or make a view."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        namespace, name = function._schema.name.split("::")  # `prim::device` is a question
        tensors = [leaf for leaf in tree_leaves((args, kwargs, output)) if isinstance(leaf, torch.Tensor)]
        works = namespace != "prim" and not function.is_view and not name.startswith("empty")
        if works and any(leaf.is_cuda for leaf in tensors):
            self.names.append(name)
        return output


class CountedKernel:
    """Takes the place of a kernel in Triton, which no machine without a GPU could launch."""

    def __init__(self, name: str, launched: list[str]):
        self.name, self.launched = name, launched

    def __getitem__(self, grid):
        return lambda *_given, **_options: self.launched.append(self.name)


@pytest.fixture
def launched(monkeypatch) -> list[str]:
    """Names of the kernels that are launched, on a machine that has neither Triton nor a GPU."""
    kernels, names = ModuleType("visreg_training.data.color.kernels"), []
    for name in ("offsets_kernel", "pixels_kernel", "blur_kernel"):
        setattr(kernels, name, CountedKernel(name, names))
    monkeypatch.setitem(sys.modules, kernels.__name__, kernels)
    monkeypatch.setattr(device_module, "runs_fused", lambda *_: True)
    monkeypatch.setattr(views_module, "runs_triton", lambda _: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)  # fake tensors know none
    return names


@pytest.mark.cpu
@pytest.mark.skipif(not traces_transformers(), reason="torch 2.6 asks CUDA's driver for fake tensors, too")
def test_launches_of_a_batch_on_fake_cuda_tensors(launched):
    """Kernels of ours and operations of torch, the copies to the device among them."""
    with FakeTensorMode(), CudaOperations() as operations:
        made = StepAugment(DeviceAugment(), torch.device("cuda"), 0, 0)(batch_of_two_resolutions(), 1)
    assert [(group.is_cuda, group.dtype) for group in made] == [(True, torch.float32)] * 2
    assert launched == ["offsets_kernel", "pixels_kernel", "blur_kernel"] * 2
    assert operations.names == ["_to_copy"] * 3  # two resolutions, and what is done to each crop
    assert len(launched + operations.names) <= MOST_LAUNCHES


@pytest.mark.gpu
def test_launches_of_a_batch_that_a_gpu_reports():
    augment, views = StepAugment(DeviceAugment(), torch.device("cuda"), 0, 0), batch_of_two_resolutions()
    augment(views, 1)
    with profile(activities=[ProfilerActivity.CUDA]) as report:
        augment(views, 3)
        torch.cuda.synchronize()
    assert 6 <= sum(event.device_type == DeviceType.CUDA for event in report.events()) <= MOST_LAUNCHES


def batch_of_two_resolutions() -> list[torch.Tensor]:
    return [torch.zeros(count, 2, 3, side, side, dtype=torch.uint8) for count, side in ((4, 224), (6, 96))]


@pytest.mark.gpu
@pytest.mark.parametrize("options", [{}, {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}])
def test_a_gpu_gives_what_the_cpu_gives(options):
    groups = [torch.randint(0, 256, (32, 3, side, side), dtype=torch.uint8) for side in (224, 96)]
    augment = DeviceAugment(solarize_probability=0.5, **options)
    right = augment.color(groups, torch.Generator().manual_seed(0))
    made = augment.color([group.cuda() for group in groups], torch.Generator().manual_seed(0))
    for ours, theirs in zip(made, right, strict=True):
        torch.testing.assert_close(ours.cpu(), theirs, rtol=0, atol=1e-4)
