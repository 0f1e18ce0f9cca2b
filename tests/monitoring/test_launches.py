# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a step launches on a GPU beside the backbone, the objective and the colors: it must not grow unnoticed.

helpers/update_launches.py says how it is counted.
"""

from types import SimpleNamespace
from unittest.mock import patch

import pytest
import torch

from helpers.update_launches import PartLaunches, fake_gpu, of_lists
from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining
from visreg_training.loop.optimizer import Updater, build_optimizer
from visreg_training.monitoring.metrics import Meters
from visreg_training.monitoring.probes import OnlineProbes


TERMS = ("total", "invariance", "center", "scale", "shape", "regularizer", "grad_norm")


@pytest.fixture(scope="module")
def vit_base():
    """On the meta device: ViT-B/16 with its projector."""
    with torch.device("meta"):
        return VISRegViTForPreTraining(VISRegViTConfig())


def launches_of_an_update(shapes, buffers) -> PartLaunches:
    """Everything after backward, of parameters and buffers of these shapes."""
    counted = PartLaunches()
    with fake_gpu():
        module = torch.nn.Module()
        for number, shape in enumerate(shapes):
            module.register_parameter(f"p{number}", torch.nn.Parameter(torch.empty(shape, device="cuda")))
        for number, (shape, kind) in enumerate(buffers):
            module.register_buffer(f"b{number}", torch.empty(shape, dtype=kind, device="cuda"))
        optimizer = build_optimizer(module, 1e-3, 0.05)
        update = Updater(SimpleNamespace(backward=lambda loss: None), optimizer, module, 1.0)
        parts = {"clip": "clip", "restore_buffers": "buffers"}
        for _step in range(2):  # the first makes the moments
            counted.operators.clear()
            for parameter in module.parameters():
                parameter.grad = torch.empty_like(parameter)
            with (
                counted,
                counted.of("finite check"),
                patch.multiple(update, **within(counted, update, parts)),
                patch.object(optimizer, "step", counting(counted, "optimizer", optimizer.step)),
            ):
                update(torch.empty((), device="cuda"), 1e-3)
    return counted


def within(counted, owner, parts):
    return {name: counting(counted, part, getattr(owner, name)) for name, part in parts.items()}


def counting(counted, part, method):
    def inside(*arguments):
        with counted.of(part):
            return method(*arguments)

    return inside


def test_an_update_of_vit_base(vit_base):
    shapes = [parameter.shape for parameter in vit_base.parameters()]
    buffers = [(buffer.shape, buffer.dtype) for buffer in vit_base.projector.buffers()]
    assert len(shapes) > 150 and len(buffers) == 6
    parts = dict(launches_of_an_update(shapes, buffers).parts)
    assert parts == {"clip": 11, "finite check": 4, "optimizer": 17, "buffers": 6}


def test_an_update_is_one_launch_for_the_meters():
    counted, meters = PartLaunches(), Meters()
    with fake_gpu():
        values, skipped = {name: torch.empty((), device="cuda") for name in TERMS}, torch.empty((), device="cuda")
        with counted:
            meters.add(values, skipped)
    assert counted.parts == {"step": 1}


@pytest.mark.cpu
def test_the_online_probes_of_vit_base():
    counted, probes = PartLaunches("cpu"), OnlineProbes(768, 1000, torch.device("cpu"), seed=0)
    blocks, features, labels = torch.randn(4, 8, 1536), torch.randn(4, 8, 768), torch.arange(8)
    for _step in range(2):  # the first makes the moments
        counted.operators.clear()
        with counted:
            probes.observe(blocks, features, labels)
    assert counted.parts == {"step": 63}, sorted(counted.operators.items())


def test_lists_are_cut_as_cuda_cuts_them():
    assert of_lists(1, [10] * 110) == 1 and of_lists(1, [10] * 111) == 2
    assert of_lists(4, [10] * 36) == 1 and of_lists(4, [10] * 37) == 2
    assert of_lists(1, [65536 * 320]) == 1 and of_lists(1, [65536 * 320 + 1]) == 2
