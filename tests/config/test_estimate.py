# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The counts of an estimate against a real step of a small model."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining
from visreg_training.compat import enable_activation_checkpointing
from visreg_training.config.estimate import activation_width, largest_micro_batch, step_cost
from visreg_training.loop.step import PretrainingStep
from visreg_training.objective import VISRegObjective


RESOLUTIONS, IMAGES = [(2, 64), (3, 32)], 8


def made(device, checkpointing=False):
    config = VISRegViTConfig(
        hidden_size=96,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=64,
        patch_size=8,
        projection_size=32,
        projector_hidden_size=64,
        drop_path_rate=0.0,
    )
    config._attn_implementation = "eager"  # torch counts no FLOPs of the CPU's fused attention
    with torch.device(device):
        model = VISRegViTForPreTraining(config)
    if checkpointing:
        enable_activation_checkpointing(model)
    return PretrainingStep(model.train(), VISRegObjective(num_slices=64), 2)


def measured(checkpointing):
    """FLOPs that torch counts in a real step, and bytes that autograd really keeps for its backward."""
    step = made("cpu", checkpointing)
    views = [torch.randn(count, IMAGES, 3, side, side) for count, side in RESOLUTIONS]
    kept, weights = {}, {parameter.untyped_storage().data_ptr() for parameter in step.parameters()}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            total = step(views, 0).terms.total
        total.backward()
    return counter.get_total_flops(), sum(kept.values())


@pytest.mark.parametrize("checkpointing", [False, True])
def test_counts_are_those_of_a_real_step(checkpointing):
    cost = step_cost(made("meta", checkpointing), RESOLUTIONS, IMAGES, IMAGES, 4)
    flops, kept = measured(checkpointing)
    sliced = 6 * 5 * IMAGES * 32 * 64  # the fused kernel is one operator, which torch's counter does not look into
    assert cost.flops - sliced == pytest.approx(flops, rel=0.02)
    if not checkpointing:
        assert cost.activation_bytes + cost.objective_bytes == pytest.approx(kept, rel=0.15)


def test_micro_batches_cost_another_forward_and_less_memory():
    whole = step_cost(made("meta"), RESOLUTIONS, IMAGES, IMAGES, 4)
    parts = step_cost(made("meta"), RESOLUTIONS, IMAGES, 2, 4)
    assert parts.flops == pytest.approx(whole.flops * 4 / 3, rel=0.05)
    assert parts.activation_bytes == pytest.approx(whole.activation_bytes / 4, rel=0.01)


def test_views_that_are_colored_ahead_are_those_of_all_images():
    big, small = 2 * IMAGES * 3 * 64**2, 3 * IMAGES * 3 * 32**2
    for micro in (2, IMAGES):
        cost = step_cost(made("meta"), RESOLUTIONS, IMAGES, micro, 4)
        assert cost.view_bytes == 9 * (big + small) + 4 * big  # two float32 sets and uint8; float32 before the blur
        assert cost.total_bytes == sum(
            (cost.state_bytes, cost.activation_bytes, cost.objective_bytes, cost.view_bytes)
        )


@pytest.mark.parametrize("images, compiled, peak", [(64, False, 26.05e9), (64, True, 22.5e9), (128, True, 43.5e9)])
def test_the_memory_measured_on_an_h100_is_what_is_estimated(images, compiled, peak):
    """ViT-B/16 under bf16 autocast, with views that were ready: one set of them, in float32."""
    with torch.device("meta"):
        step = PretrainingStep(VISRegViTForPreTraining(VISRegViTConfig()), VISRegObjective(), 4)
    cost = step_cost(step, [(4, 224), (6, 96)], images, images, activation_width(True, compiled))
    ready = 4 * images * 3 * (4 * 224**2 + 6 * 96**2)
    assert cost.total_bytes - cost.view_bytes + ready == pytest.approx(peak, rel=0.01)


def test_the_largest_micro_batch_is_all_or_a_power_of_two():
    step = made("meta")

    one = step_cost(step, RESOLUTIONS, 24, 1, 4)

    def room(images):
        return one.total_bytes + (images - 1) * one.activation_bytes

    assert largest_micro_batch(step, RESOLUTIONS, 24, 4, room(24)) == 24
    assert largest_micro_batch(step, RESOLUTIONS, 24, 4, room(24) - 1) == 16
    assert largest_micro_batch(step, RESOLUTIONS, 24, 4, room(3)) == 2
    assert largest_micro_batch(step, RESOLUTIONS, 24, 4, room(1) - 1) is None
