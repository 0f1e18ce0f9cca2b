# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Where a test runs: one marked `cpu` sees no GPU, one marked `gpu` needs one, all others take what there is.

And fixtures of several folders.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager


os.environ.pop("HF_HUB_OFFLINE", None)  # before huggingface_hub reads it: the tests have a Hub of their own

# isort: split
import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

import modeling_visreg


HAS_GPU = torch.cuda.is_available()  # asked before CUDA_VISIBLE_DEVICES is ever changed: the driver reads it once


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not HAS_GPU:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a GPU that CUDA can use"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Around the fixtures too, those of a module included: some start processes."""
    if item.get_closest_marker("cpu") is None:
        return (yield)
    with on_cpu():
        return (yield)


@contextmanager
def on_cpu() -> Iterator[None]:
    """Hides GPUs from this process's libraries and from the processes that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(torch.accelerator, "is_available", lambda: False)
        yield


@pytest.fixture(autouse=True)
def _same_start() -> Iterator[None]:
    """Each test draws the same numbers whichever ran before it, and chooses its device anew: Accelerate remembers it
    for the whole process.
    """
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> str:
    """A VISReg ViT of 16 x 16 pixels with random weights, as a directory."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    torch.manual_seed(0)
    config = modeling_visreg.VISRegViTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, image_size=16, patch_size=4, drop_path_rate=0.5
    )
    return str(modeling_visreg.save_checkpoint(modeling_visreg.VISRegViTModel(config), folder))
