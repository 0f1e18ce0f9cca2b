# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The plan's counts against a real step of a small model."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining
from visreg_training.commands import plan
from visreg_training.compat import enable_activation_checkpointing
from visreg_training.data import open_stream
from visreg_training.errors import UserError
from visreg_training.loop.assembly import config_from, fill_defaults, meta_step
from visreg_training.loop.config import parse
from visreg_training.loop.estimate import step_cost
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


def test_the_command_prints_counts_and_estimates(capsys):
    plan.main(["--config", "vit_base_in1k", "--gpus", "8", "--gpu", "h100"])
    printed = capsys.readouterr().out
    assert "counted:" in printed and "estimated:" in printed
    assert "92.1 M" in printed and "16 images, 16,160 tokens" in printed  # 4 x 197 + 6 x 37 tokens an image
    with pytest.raises(UserError, match="cannot be shared by 7 processes: use 126 or 133"):
        plan.main(["--config", "vit_base_in1k", "--gpus", "7"])


def test_defaults_choose_the_micro_batch_from_the_memory_of_the_device():
    """A GPU that is not there: the largest power of two whose estimate fits; what is given stays."""

    def chosen(gib, *flags, processes=1):
        flags = ("--model", "vit_large", "--patch_size", "16", "--num_hidden_layers", "2", *flags)
        flags += ("--global_batch_size", "64", "--num_slices", "256")
        arguments = parse(["--dataset", "photos", "--output_dir", "out", *flags])
        source = open_stream("digits")
        lines = fill_defaults(arguments, source, torch.device("cpu"), processes, int(gib * 2**30), width=2)
        step = meta_step(arguments, config_from(arguments.model, arguments.data))

        def need(micro):
            images = 64 // processes
            return step_cost(step, arguments.data.resolutions(), images, micro, 2, processes).total_bytes / 2**30

        return arguments.run.micro_batch_size, need, next((line for line in lines if "micro_batch" in line), "")

    sizes = ("--global_size", "224", "--local_size", "96", "--num_global", "4", "--num_local", "6")
    micro, need, line = chosen(4, *sizes)
    assert micro in (4, 8, 16, 32) and need(micro) <= 0.9 * 4 < need(2 * micro)
    assert f"of 64 on a device; estimated to need {need(micro):.1f} of its 4 GiB" in line
    assert chosen(1000, *sizes)[0] == 64
    assert chosen(1000, *sizes, processes=4)[0] == 16
    assert "will not fit" in chosen(0.1, *sizes)[2]
    assert chosen(4, *sizes, "--micro_batch_size", "3")[::2] == (3, "")
