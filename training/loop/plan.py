# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What follows from a recipe and the number of processes: batch of a rank, steps, learning rate, images seen.

A recipe names the global batch; everything else is derived here, or refused with the numbers that fit.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import UserError
from .optimization import Schedule


@dataclass(frozen=True)
class RunPlan:
    """Batches are in images, steps in updates; `steps_per_epoch` is None where the size of the data is unknown."""

    processes: int
    global_batch_size: int
    rank_batch_size: int
    micro_batch_size: int
    num_examples: int | None
    steps_per_epoch: int | None
    total_steps: int
    warmup_steps: int
    learning_rate: float
    views: int
    slices: int
    slices_of_a_rank: int
    images_seen: int

    def schedule(self, final_ratio: float) -> Schedule:
        return Schedule(self.learning_rate, self.total_steps, self.warmup_steps, final_ratio)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def lines(self) -> list[str]:
        """The plan as it is printed once, at the start."""
        epochs = f" ({self.total_steps / self.steps_per_epoch:g} epochs)" if self.steps_per_epoch else ""
        micro = f", {self.micro_batch_size} at once" if self.micro_batch_size < self.rank_batch_size else ""
        return [
            f"batch    {self.global_batch_size} images = {self.processes} x {self.rank_batch_size}{micro}; "
            f"{self.views} views an image",
            f"steps    {self.total_steps}{epochs}, warmup {self.warmup_steps}; {self.images_seen:,} images seen",
            f"rate     {self.learning_rate:.3g} at its peak",
            f"slices   {self.slices} a step, {self.slices_of_a_rank} on each rank",
        ]


def plan_run(run, data, objective, processes: int, num_examples: int | None) -> RunPlan:
    """Derive the plan from the run, data and objective options.

    Raises:
        UserError: a batch that the processes or the data cannot make, with the numbers that would do.
    """
    batch = run.global_batch_size
    rank_batch = divided_batch(batch, processes)
    if objective.statistics == "local" and rank_batch < 2:
        raise UserError(
            f"statistics over each rank need 2 images on it: global_batch_size must be at least {2 * processes}"
        )
    if batch < 2:
        raise UserError("global_batch_size must be at least 2: the terms are statistics over the batch")
    if num_examples is not None and num_examples < batch:
        raise UserError(
            f"global_batch_size is {batch}, the data set has {num_examples} images: "
            f"use at most {num_examples // processes * processes}"
        )
    steps_per_epoch = None if num_examples is None else num_examples // batch
    total = total_steps(run, steps_per_epoch)
    if run.max_steps is None:
        warmup = round(run.warmup_epochs * steps_per_epoch)
    else:  # cut short, or of unknown size: the warmup keeps its share of the recipe
        warmup = round(total * min(1.0, run.warmup_epochs / run.epochs))
    return RunPlan(
        processes=processes,
        global_batch_size=batch,
        rank_batch_size=rank_batch,
        micro_batch_size=min(run.micro_batch_size or rank_batch, rank_batch),
        num_examples=num_examples,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        warmup_steps=min(warmup, total),
        learning_rate=scaled_rate(run),
        views=data.num_global + data.num_local,
        slices=objective.num_slices * (processes if objective.slices == "per_rank" else 1),
        slices_of_a_rank=objective.num_slices
        if objective.slices == "per_rank"
        else -(-objective.num_slices // processes),
        images_seen=total * batch,
    )


def divided_batch(batch: int, processes: int) -> int:
    if batch % processes:
        low = batch // processes * processes
        fits = f"{low} or {low + processes}" if low else f"{processes}"
        raise UserError(f"global_batch_size {batch} cannot be shared by {processes} processes: use {fits}")
    return batch // processes


def total_steps(run, steps_per_epoch: int | None) -> int:
    if run.max_steps is not None:
        return run.max_steps
    if steps_per_epoch is None:
        raise UserError("the size of this data set is unknown: give --max_steps")
    return max(1, round(run.epochs * steps_per_epoch))


def scaled_rate(run) -> float:
    """The peak learning rate under `learning_rate_rule`."""
    ratio = run.global_batch_size / run.base_batch_size
    return run.learning_rate * {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[run.learning_rate_rule]
