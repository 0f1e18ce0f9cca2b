# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What follows from a recipe: batches, steps and rates; and the schedule as a pure function of the step."""

import math

import pytest
import torch

from visreg_training.errors import UserError
from visreg_training.loop.architectures import architecture_name, model_config
from visreg_training.loop.config import parse
from visreg_training.loop.optimization import Schedule, make_optimizer, parameter_groups
from visreg_training.loop.plan import plan_run


def planned(*flags, processes=1, num_examples=1000):
    arguments = parse(["--dataset", "digits", "--output_dir", "out", *flags])
    return plan_run(arguments.run, arguments.data, arguments.objective, processes, num_examples)


def test_the_recipe_names_the_global_batch():
    plan = planned("--global_batch_size", "96", "--epochs", "10", "--warmup_epochs", "2", processes=3)
    assert (plan.rank_batch_size, plan.steps_per_epoch, plan.total_steps, plan.warmup_steps) == (32, 10, 100, 20)
    assert plan.images_seen == 9600 and plan.slices == 4096 and plan.slices_of_a_rank == 1366


def test_a_recipe_that_is_cut_short_keeps_the_share_of_its_warmup():
    plan = planned("--global_batch_size", "10", "--epochs", "100", "--warmup_epochs", "5", "--max_steps", "60")
    assert (plan.total_steps, plan.warmup_steps) == (60, 3)


@pytest.mark.parametrize("rule, rate", [("none", 1e-3), ("linear", 5e-4), ("sqrt", 1e-3 * math.sqrt(0.5))])
def test_learning_rate_rules(rule, rate):
    flags = ["--learning_rate", "1e-3", "--learning_rate_rule", rule, "--base_batch_size", "256"]
    assert planned("--global_batch_size", "128", *flags).learning_rate == pytest.approx(rate)


@pytest.mark.parametrize(
    "flags, options, words",
    [
        (["--global_batch_size", "100"], {"processes": 3}, "use 99 or 102"),
        (["--global_batch_size", "2000"], {}, "use at most 1000"),
        (["--global_batch_size", "1"], {}, "at least 2"),
        (["--global_batch_size", "64"], {"num_examples": None}, "give --max_steps"),
        (["--global_batch_size", "4", "--statistics", "local"], {"processes": 4}, "at least 8"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(flags, options, words):
    with pytest.raises(UserError, match=words):
        planned(*flags, **options)


def test_schedule_by_known_values():
    schedule = Schedule(peak=1.0, total_steps=110, warmup_steps=10, final_ratio=1e-3)
    assert schedule.learning_rate(0) == pytest.approx(0.1)
    assert schedule.learning_rate(9) == schedule.learning_rate(10) == pytest.approx(1.0)
    assert schedule.learning_rate(60) == pytest.approx((1 + 1e-3) / 2)
    assert schedule.learning_rate(110) == pytest.approx(1e-3)


def test_vectors_do_not_decay_and_nothing_is_left_out():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4))
    decayed, spared = parameter_groups(model, 0.05)
    assert [p.ndim for p in decayed["params"]] == [2] and decayed["weight_decay"] == 0.05
    assert [p.ndim for p in spared["params"]] == [1, 1, 1] and spared["weight_decay"] == 0.0
    assert isinstance(make_optimizer(model, 1e-3, 0.05), torch.optim.AdamW)


def test_an_architecture_goes_by_its_name_only_if_it_has_its_sizes():
    assert architecture_name(model_config("vit_giant", 224)) == "vit_giant"
    assert architecture_name(model_config("vit_small", 224, patch_size=16, projection_size=64)) == "vit_small"
    assert architecture_name(model_config("vit_tiny", 16, hidden_size=64, num_attention_heads=4, patch_size=2)) is None
