# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What decays and what does not; clipping inside the kernel; buffers of a step that is left out."""

from types import SimpleNamespace

import pytest
import torch

from visreg_training.loop.optimizer import Updater, build_optimizer, parameter_groups


def test_vectors_do_not_decay_and_nothing_is_left_out():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    decayed, spared = parameter_groups(model, 0.05)
    assert [p.ndim for p in decayed["params"]] == [2] and decayed["weight_decay"] == 0.05
    assert [p.ndim for p in spared["params"]] == [1, 1, 1] and spared["weight_decay"] == 0.0
    assert isinstance(build_optimizer(model, 1e-3, 0.05), torch.optim.AdamW)


def updater(clip_norm: float) -> tuple[torch.nn.Module, Updater]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 1))
    accelerator = SimpleNamespace(backward=lambda loss: loss.backward())
    return model, Updater(accelerator, build_optimizer(model, 1e-3, 0.05), model, clip_norm)


@pytest.mark.parametrize("clip_norm", [1e-3, 1.0, 1e3])
def test_the_kernel_clips_as_torch_does(clip_norm):
    """As on a GPU: the fused kernel divides the gradients itself."""
    results = []
    for in_kernel in (False, True):
        model, update = updater(clip_norm)
        update.clips_in_kernel = in_kernel
        for step in range(3):
            images = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
            norm, skipped = update(model(images).square().sum(), 1e-2)
            assert skipped == 0
        results.append([norm, *model.state_dict().values()])
        results[-1] += [state["exp_avg"] for state in update.optimizer.state.values()]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_a_first_update_that_is_left_out_keeps_the_statistics_of_a_checkpoint():
    model, update = updater(1.0)
    trained = {name: value + 1 for name, value in model.state_dict().items()}
    model.load_state_dict(trained)
    update.remember_buffers()
    assert update(model(torch.full((8, 4), torch.nan)).sum(), 1e-2)[1] == 1
    assert all(torch.equal(value, trained[name]) for name, value in model.state_dict().items())
