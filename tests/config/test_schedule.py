# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What follows from the options: batches, steps and rates; and the learning rate as a pure function of the step."""

import math

import pytest
import torch

from visreg_training.config import LearningRateSchedule, PretrainOptions, training_schedule
from visreg_training.errors import UserError


def scheduled(processes=1, num_examples=1000, **options):
    return training_schedule(PretrainOptions(**options), processes, num_examples)


def test_the_recipe_names_the_global_batch():
    schedule = scheduled(processes=3, global_batch_size=96, epochs=10, warmup_epochs=2)
    assert (schedule.rank_batch_size, schedule.micro_batch_size, schedule.steps_per_epoch) == (32, 32, 10)
    assert (schedule.total_steps, schedule.warmup_steps, schedule.images_seen) == (100, 20, 9600)
    assert (schedule.views, schedule.slices, schedule.slices_of_a_rank) == (10, 4096, 1366)
    published = scheduled(processes=3, global_batch_size=96, slices="per_rank", micro_batch_size=8)
    assert (published.slices, published.slices_of_a_rank, published.micro_batch_size) == (3 * 4096, 4096, 8)


def test_a_recipe_that_is_cut_short_keeps_the_share_of_its_warmup():
    schedule = scheduled(global_batch_size=10, epochs=100, warmup_epochs=5, max_steps=60)
    assert (schedule.total_steps, schedule.warmup_steps) == (60, 3)
    unknown = scheduled(num_examples=None, global_batch_size=10, max_steps=60)
    assert (unknown.steps_per_epoch, unknown.total_steps, unknown.warmup_steps) == (None, 60, 3)


@pytest.mark.parametrize("rule, rate", [("none", 1e-3), ("linear", 5e-4), ("sqrt", 1e-3 * math.sqrt(0.5))])
def test_learning_rate_rules(rule, rate):
    schedule = scheduled(global_batch_size=128, learning_rate=1e-3, learning_rate_rule=rule, base_batch_size=256)
    assert schedule.learning_rate == pytest.approx(rate)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"global_batch_size": 100, "processes": 3}, "use 99 or 102"),
        ({"global_batch_size": 2000}, "use at most 1000"),
        ({"global_batch_size": 1}, "at least 2"),
        ({"global_batch_size": 64, "num_examples": None}, "give --max_steps"),
        ({"global_batch_size": 4, "statistics": "local", "processes": 4}, "at least 8"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_does(options, words):
    with pytest.raises(UserError, match=words):
        scheduled(**options)


def test_the_learning_rate_by_known_values():
    schedule = LearningRateSchedule(peak=1.0, total_steps=110, warmup_steps=10, final_ratio=1e-3)
    assert schedule.learning_rate(0) == pytest.approx(0.1)
    assert schedule.learning_rate(9) == schedule.learning_rate(10) == pytest.approx(1.0)
    assert schedule.learning_rate(60) == pytest.approx((1 + 1e-3) / 2)
    assert schedule.learning_rate(110) == pytest.approx(1e-3)


def test_the_schedule_of_a_run_makes_its_learning_rates():
    schedule = scheduled(global_batch_size=100, epochs=11, warmup_epochs=1, learning_rate=0.5)
    assert schedule.learning_rates(1e-2) == LearningRateSchedule(0.5, 110, 10, 1e-2)


def test_the_schedule_is_printed_and_written():
    schedule = scheduled(global_batch_size=100, epochs=2, micro_batch_size=50)
    assert schedule.lines()[0] == "batch    100 images = 1 x 100, 50 at once; 10 views an image"
    assert schedule.lines()[1] == "steps    20 (2 epochs), warmup 20; 2,000 images seen"
    assert schedule.as_dict()["images_seen"] == 2000


def test_the_warmup_of_the_release_starts_at_a_thousandth():
    """As torch's LinearLR and CosineAnnealingLR, one after the other, have it."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.5)
    warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, total_iters=10)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40, eta_min=0.5e-3)
    expected = torch.optim.lr_scheduler.SequentialLR(optimizer, [warmup, cosine], [10])
    found = LearningRateSchedule(0.5, 50, 10, 1e-3, 1e-3)
    for step in range(50):
        assert found.learning_rate(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-6), step
        optimizer.step()
        expected.step()
