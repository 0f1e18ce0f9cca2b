# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What follows from the options and the number of processes: batch of a rank, steps, learning rate, images seen.

A recipe names the global batch; everything else is derived here, or refused with the numbers that fit.
"""

import math
from dataclasses import asdict, dataclass

from ..errors import UserError
from ..run_folder import Json
from .options import PretrainOptions


@dataclass(frozen=True)
class LearningRateSchedule:
    """Linear warmup, then a half cosine from `peak` to `peak * final_ratio` at `total_steps`.

    Source: cosine to lr / 1000 after a linear warmup (method: recipes table). With `initial_ratio` the warmup starts
    at that share of the peak and reaches it one step after its last, as in the release; without, its steps are equal
    parts of the peak.
    """

    peak: float
    total_steps: int
    warmup_steps: int
    final_ratio: float = PretrainOptions.final_learning_rate_ratio
    initial_ratio: float | None = None

    def learning_rate(self, step: int) -> float:
        """The learning rate of update `step` (0-based)."""
        if step < self.warmup_steps and self.initial_ratio is not None:
            return self.peak * (self.initial_ratio + (1 - self.initial_ratio) * step / self.warmup_steps)
        if step < self.warmup_steps:
            return self.peak * (step + 1) / self.warmup_steps
        progress = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        final = self.peak * self.final_ratio
        return final + (self.peak - final) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


@dataclass(frozen=True)
class TrainingSchedule:
    """Batches are in images, steps in updates; `steps_per_epoch` is None where the size of the data is unknown.

    `run.json` holds it under "plan".
    """

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

    def learning_rates(self, final_ratio: float, initial_ratio: float | None = None) -> LearningRateSchedule:
        """The learning rate of every step; the ratios are those of the last and of the first one to the peak."""
        return LearningRateSchedule(
            self.learning_rate, self.total_steps, self.warmup_steps, final_ratio, initial_ratio
        )

    def as_dict(self) -> Json:
        return asdict(self)

    def lines(self) -> list[str]:
        """The schedule as it is printed once, at the start."""
        epochs = f" ({self.total_steps / self.steps_per_epoch:g} epochs)" if self.steps_per_epoch else ""
        micro = f", {self.micro_batch_size} at once" if self.micro_batch_size < self.rank_batch_size else ""
        return [
            f"batch    {self.global_batch_size} images = {self.processes} x {self.rank_batch_size}{micro}; "
            f"{self.views} views an image",
            f"steps    {self.total_steps}{epochs}, warmup {self.warmup_steps}; {self.images_seen:,} images seen",
            f"rate     {self.learning_rate:.3g} at its peak",
            f"slices   {self.slices} a step, {self.slices_of_a_rank} on each rank",
        ]


def training_schedule(options: PretrainOptions, processes: int, num_examples: int | None) -> TrainingSchedule:
    """Derive the schedule of a run on `num_examples` images (None: unknown).

    Raises:
        UserError: a batch that the processes or the data cannot make, with the numbers that would do.
    """
    batch = options.global_batch_size
    rank_batch = divided_batch(batch, processes)
    _check_batch(options, processes, num_examples)
    steps_per_epoch = None if num_examples is None else num_examples // batch
    total = _total_steps(options, steps_per_epoch)
    if options.max_steps is None:
        warmup = round(options.warmup_epochs * (steps_per_epoch or 0))
    else:  # cut short, or of unknown size: the warmup keeps its share of the recipe
        warmup = round(total * min(1.0, options.warmup_epochs / options.epochs))
    per_rank = options.slices == "per_rank"
    return TrainingSchedule(
        processes=processes,
        global_batch_size=batch,
        rank_batch_size=rank_batch,
        micro_batch_size=min(options.micro_batch_size or rank_batch, rank_batch),
        num_examples=num_examples,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
        warmup_steps=min(warmup, total),
        learning_rate=_peak_learning_rate(options),
        views=options.num_global + options.num_local,
        slices=options.num_slices * (processes if per_rank else 1),
        slices_of_a_rank=options.num_slices if per_rank else -(-options.num_slices // processes),
        images_seen=total * batch,
    )


def divided_batch(batch: int, processes: int) -> int:
    """Images of one process.

    Raises:
        UserError: the processes do not divide the batch.
    """
    if batch % processes:
        low = batch // processes * processes
        fits = f"{low} or {low + processes}" if low else f"{processes}"
        raise UserError(f"global_batch_size {batch} cannot be shared by {processes} processes: use {fits}")
    return batch // processes


def _check_batch(options: PretrainOptions, processes: int, num_examples: int | None) -> None:
    batch = options.global_batch_size
    if options.statistics == "local" and batch // processes < 2:
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


def _total_steps(options: PretrainOptions, steps_per_epoch: int | None) -> int:
    if options.max_steps is not None:
        return options.max_steps
    if steps_per_epoch is None:
        raise UserError("the size of this data set is unknown: give --max_steps")
    return max(1, round(options.epochs * steps_per_epoch))


def _peak_learning_rate(options: PretrainOptions) -> float:
    """The learning rate after `learning_rate_rule`."""
    ratio = options.global_batch_size / options.base_batch_size
    factor = {"none": 1.0, "linear": ratio, "sqrt": math.sqrt(ratio)}[options.learning_rate_rule]
    return options.learning_rate * factor
