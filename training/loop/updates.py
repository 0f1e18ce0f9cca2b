# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The one update loop: pretraining, analyses and benchmarks drive the same generator and add what they need.

V views, B images of a rank; views of one resolution are (V_r, B, C, H, W).
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import nn

from ..backbones import depth_rates, wrap_backbone
from ..data import MultiViewBatch
from ..seeding import seed_of
from .compiling import compile_mode
from .optimizer import Updater, build_optimizer
from .packed import packs
from .run import Run, build_objective
from .step import PretrainingStep, StepOutput


class Update(NamedTuple):
    """One update that was made.

    Attributes:
        step: number of the update, from 0.
        output: of the step, before the update.
        gradient_norm: scalar on the device, before clipping.
        skipped: 1 on the device if the update was not finite and therefore left out, else 0.
        batch: with normalized float views on the device.
        learning_rate: of this update.
    """

    step: int
    output: StepOutput
    gradient_norm: torch.Tensor
    skipped: torch.Tensor
    batch: MultiViewBatch
    learning_rate: float


class Batches(Protocol):
    """Endless batches with normalized float views on the device: `ViewBatches`."""

    def __next__(self) -> MultiViewBatch: ...


class Trainer(NamedTuple):
    """What an update needs. `module` is the prepared step; `optimizer` the plain one, whose state is saved."""

    module: nn.Module
    optimizer: torch.optim.Optimizer
    update: Updater


def prepare(run: Run) -> Trainer:
    """The step and the optimizer of a run, prepared by Accelerate for its processes."""
    options, accelerator = run.options, run.accelerator
    step = build_step(run)
    rates = depth_rates(wrap_backbone(run.model), options.layer_decay)
    optimizer = build_optimizer(step, run.schedule.learning_rate, options.weight_decay, rates)
    module, prepared = accelerator.prepare(step, optimizer)
    return Trainer(module, optimizer, Updater(accelerator, prepared, module, options.clip_norm))


def build_step(run: Run) -> PretrainingStep:
    """The one module that is prepared."""
    options, accelerator = run.options, run.accelerator
    objective, micro = build_objective(options), run.schedule.micro_batch_size
    packed = compile_mode(options.compile, accelerator.device) == "blocks" and packs(run.model)
    step = PretrainingStep(run.model, objective, options.num_global, micro, run.probed, packed)
    if accelerator.is_fsdp2:
        # FSDP's policy would cast the batch norm too, which fails; autocast, as everywhere else, leaves it in float32.
        accelerator.state.fsdp_plugin.mixed_precision_policy = None
        step.forward = accelerator.autocast()(step.forward)
    return step


def updates(run: Run, trainer: Trainer, batches: Batches, start: int = 0) -> Iterator[Update]:
    """Every update from `start` (0-based) to the end of the run, each made when it is asked for."""
    seed, rank = run.options.seed, run.accelerator.process_index
    ratios = run.options.final_learning_rate_ratio, run.options.initial_learning_rate_ratio
    schedule = run.schedule.learning_rates(*ratios)
    trainer.module.train()
    trainer.update.remember_buffers()
    for step in range(start, run.schedule.total_steps):
        batch = next(batches)
        torch.manual_seed(seed_of("drop_path", seed, step, rank))
        output = trainer.module(batch.views, step)
        rate = schedule.learning_rate(step)
        norm, skipped = trainer.update(output.terms.total, rate)
        yield Update(step, output, norm, skipped, batch, rate)
