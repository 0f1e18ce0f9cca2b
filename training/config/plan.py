# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a recipe will need on given GPUs: memory, rate, worker cores and days, as lines."""

import math

from ..errors import UserError
from .architectures import check_crops, config_from
from .defaults import MetaStep
from .estimate import Cost, activation_width, largest_micro_batch, step_cost
from .gpus import GPUS, USABLE
from .options import PretrainOptions
from .schedule import divided_batch


# Training images of the data sets that our recipes name.
IMAGES = {
    "ILSVRC/imagenet-1k": 1_281_167,
    "timm/imagenet-22k-wds": 14_197_122,
    "frgfm/imagenette": 9_469,
    "digits": 1_437,
}


def plan_lines(
    options: PretrainOptions,
    meta_step: MetaStep,
    *,
    gpu: str,
    gpus: int,
    images: int | None,
    utilization: float,
    worker_rate: float,
) -> list[str]:
    """The plan of a recipe.

    Args:
        meta_step: makes the step whose operations are counted.
        gpu, gpus: which (a key of GPUS) and how many.
        images: in the data set; None where it is one that our recipes name.
        utilization: share of the peak of matrix products that is reached, in (0, 1].
        worker_rate: images a second that a core loads.

    Raises:
        UserError: a value is out of range, or the number of images is not known.
    """
    images = images or IMAGES.get(options.dataset or "")
    if images is None and options.max_steps is None:
        raise UserError(f"--images is missing: the size of {options.dataset or 'the data set'} is not known here")
    if gpus < 1 or not 0 < utilization <= 1 or worker_rate <= 0 or (images or 1) < 1:
        raise UserError("gpus, images and worker_rate must be above 0, utilization in (0, 1]")
    config = config_from(options)
    check_crops(config.patch_size, options)
    batch = divided_batch(options.global_batch_size, gpus)
    step, card = meta_step(options, config), GPUS[gpu]
    width = activation_width(options.mixed_precision != "no", options.compile in ("auto", "blocks"))
    room = card.memory * 2**30 * USABLE
    micro = min(options.micro_batch_size or batch, batch)
    cost = step_cost(step, options.resolutions(), batch, micro, width, gpus)
    fits = cost.total_bytes <= room
    largest = largest_micro_batch(step, options.resolutions(), batch, width, room, gpus)
    advice = "nothing does" if largest is None else f"--micro_batch_size {largest} does"
    rate = card.tflops * 1e12 * utilization / (cost.flops / batch) * gpus
    seen = (options.max_steps * options.global_batch_size) if options.max_steps else options.epochs * (images or 0)
    return [
        *counted_lines(cost, batch),
        "estimated:",
        f"  memory of a GPU    {gib(cost.total_bytes)} of {card.memory:g} GiB: {memory_parts(cost)}",
        f"  fits               {'yes' if fits else 'no; ' + advice}",
        f"  rate               {rate:.0f} images/s on {gpus} x {gpu} at {utilization:.0%} of the peak",
        f"  worker cores       {math.ceil(rate / worker_rate)} at {worker_rate:g} images/s each",
        f"  duration           {seen / rate / 86400:.1f} days for {seen:,.0f} images",
    ]


def counted_lines(cost: Cost, batch: int) -> list[str]:
    """What is counted, not estimated."""
    return [
        "counted:",
        f"  parameters         {cost.parameters / 1e6:.1f} M, projector included",
        f"  a step of a GPU    {batch} images, {cost.tokens:,} tokens, {cost.flops / 1e12:.2f} TFLOP",
    ]


def memory_parts(cost: Cost) -> str:
    """Where the memory goes."""
    parts = {
        "weights and optimizer": cost.state_bytes,
        "activations": cost.activation_bytes,
        "objective": cost.objective_bytes,
        "views": cost.view_bytes,
    }
    return ", ".join(f"{name} {gib(count)}" for name, count in parts.items())


def gib(count: float) -> str:
    """Bytes as GiB."""
    return f"{count / 2**30:.1f} GiB"
