# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""On a CPU each core colours a part of the crops: that changes nothing but the time."""

import types

import pytest
import torch

from visreg_training.loop.assembly import StepAugment
from visreg_training.loop.config import parse
from visreg_training.loop.randomness import AUGMENTATION, generator


@pytest.fixture
def parts():
    arguments = parse(["--dataset", "any", "--output_dir", "none", "--seed", "3"])
    accelerator = types.SimpleNamespace(device=torch.device("cpu"), process_index=1)
    return types.SimpleNamespace(arguments=arguments, accelerator=accelerator)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_parts_are_coloured_as_the_whole(parts, two_threads):
    draws = torch.Generator().manual_seed(0)
    views = [torch.randint(0, 256, (2, 21, 3, side, side), dtype=torch.uint8, generator=draws) for side in (32, 16)]
    augment = StepAugment(parts)
    augment(views, 4)
    coloured = [group.clone() for group in augment(views, 5)]
    colours = generator("cpu", 3, 5, 1, AUGMENTATION)
    for group, result in zip(views, coloured, strict=True):
        whole = augment.augment(group.flatten(0, 1), colours).unflatten(0, group.shape[:2])
        torch.testing.assert_close(result, whole, rtol=0, atol=1e-4)
    for result, again in zip(coloured, augment(views, 5), strict=True):
        assert torch.equal(result, again)  # a function of (seed, step, rank), bit for bit
