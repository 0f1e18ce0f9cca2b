# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a run without a recipe uses: chosen from the images and the device, beside what was given."""

from dataclasses import replace

import pytest
import torch

from modeling_visreg import VISRegViTForPreTraining
from visreg_training.config import config_from, parse
from visreg_training.config.defaults import fill_defaults
from visreg_training.config.estimate import step_cost
from visreg_training.data import open_stream
from visreg_training.loop.step import PretrainingStep
from visreg_training.objective import VISRegObjective


def meta_step(options, config):
    with torch.device("meta"):
        model = VISRegViTForPreTraining(config)
    return PretrainingStep(model, VISRegObjective(num_slices=options.num_slices), options.num_global)


@pytest.fixture(scope="module")
def source():
    return open_stream("digits")


def filled(source, *flags, processes=1, **memory):
    options = parse(["--dataset", "photos", "--output_dir", "out", *flags])
    device = torch.device("cpu")
    return fill_defaults(options, source, device, processes, meta_step=meta_step, **memory)


def test_what_is_given_stays_and_the_rest_is_chosen_with_a_reason(source):
    options, lines = filled(source, "--epochs", "7", "--learning-rate", "1e-2")
    assert (options.epochs, options.learning_rate, options.micro_batch_size) == (7, 1e-2, None)
    assert (options.model, options.patch_size, options.global_size, options.num_global) == ("vit_tiny", 2, 16, 2)
    assert (options.global_batch_size, options.regularization_weight, options.log_every) == (64, 0.6, 3)
    assert options.given == {"dataset", "output_dir", "epochs", "learning_rate"}
    chosen = {line.split()[0] for line in lines[1:]}
    assert lines[0].startswith("no recipe given") and {"model", "global_size"} <= chosen and "epochs" not in chosen
    assert filled(source, processes=3)[0].global_batch_size == 66


@pytest.mark.parametrize(
    ("images", "processes", "batch"), [(1, 1, 1), (2, 1, 2), (5, 1, 4), (7, 2, 4), (5, 3, 3), (8, 1, 8), (33, 1, 8)]
)
def test_the_batch_of_a_few_images_is_one_that_they_fill(source, images, processes, batch):
    few = replace(source, num_examples=images, rows=source.rows[:images])
    assert filled(few, processes=processes)[0].global_batch_size == batch


@pytest.mark.parametrize(
    "flags, warmup, save_every",
    [
        ([], 2, 66),  # 22 steps an epoch, 30 epochs
        (["--epochs", "3"], 0.2, 6),
        (["--epochs", "60"], 2, 132),
        (["--epochs", "3", "--warmup_epochs", "1", "--save_every", "50"], 1, 50),
        (["--max_steps", "5"], 2, 1),  # the schedule cuts the warmup of a run that ends before its epochs
        (["--epochs", "6", "--global_batch_size", "32"], 0.4, 26),
        (["--max_steps", "50000"], 2, 1000),
    ],
)
def test_warmup_and_checkpoints_follow_the_length(source, flags, warmup, save_every):
    """A run of 120 steps had no checkpoint before its end, and one of 15 steps warmed up for 10."""
    options, lines = filled(source, *flags)
    assert (options.warmup_epochs, options.save_every) == (pytest.approx(warmup), save_every)
    assert any("save_every" in line for line in lines) == ("--save_every" not in flags)


def test_the_micro_batch_follows_from_the_memory_of_the_device(source):
    """A GPU that is not there: the largest power of two whose estimate fits; what is given stays."""

    def chosen(gib, *flags, processes=1):
        flags = ("--model", "vit_large", "--patch_size", "16", "--num_hidden_layers", "2", *flags)
        flags += ("--global_batch_size", "64", "--num_slices", "256")
        options, lines = filled(source, *flags, processes=processes, memory=int(gib * 2**30), width=2)
        step = meta_step(options, config_from(options))

        def need(micro):
            images = 64 // processes
            return step_cost(step, options.resolutions(), images, micro, 2, processes).total_bytes / 2**30

        return options.micro_batch_size, need, next((line for line in lines if "micro_batch" in line), "")

    sizes = ("--global_size", "224", "--local_size", "96", "--num_global", "4", "--num_local", "6")
    micro, need, line = chosen(4, *sizes)
    assert micro in (4, 8, 16, 32) and need(micro) <= 0.9 * 4 < need(2 * micro)
    assert f"of 64 on a device; estimated to need {need(micro):.1f} of its 4 GiB" in line
    assert chosen(1000, *sizes)[0] == 64
    assert chosen(1000, *sizes, processes=4)[0] == 16
    assert "will not fit" in chosen(0.1, *sizes)[2]
    assert chosen(4, *sizes, "--micro_batch_size", "3")[::2] == (3, "")


def test_a_start_and_few_images_make_a_gentler_and_shorter_run(source, tmp_path):
    config_from(
        parse(["--dataset", "photos", "--output_dir", "out", "--global_size", "16", "--patch_size", "2"])
    ).save_pretrained(tmp_path)
    fresh, _lines = filled(source)
    start = ("--initialize_from", str(tmp_path))
    gentle, lines = filled(source, *start)
    assert (gentle.learning_rate, gentle.layer_decay, gentle.epochs) == (
        pytest.approx(fresh.learning_rate / 10),
        0.75,
        10,
    )
    assert any("1,437 images and a start" in line for line in lines) and len(
        {line.split()[0] for line in lines}
    ) == len(lines)
    adapters, lines = filled(source, *start, "--lora_rank", "8")
    assert (adapters.learning_rate, adapters.layer_decay) == (fresh.learning_rate, 1.0)
    assert filled(source, *start, "--learning_rate", "0.3", "--epochs", "2")[0].learning_rate == 0.3
