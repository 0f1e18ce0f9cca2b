# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a recipe will need on given GPUs: memory, rate, worker cores and days, as lines."""

import math
from typing import NamedTuple

from modeling_visreg import VISRegViTConfig

from ..errors import UserError
from .architectures import check_crops, config_from
from .defaults import MetaStep
from .estimate import Cost, activation_width, largest_micro_batch, step_cost
from .gpus import GPUS, HOST_SECONDS, REACHED, USABLE, Gpu
from .options import PretrainOptions
from .schedule import divided_batch


# Training images of the data sets that our recipes name.
IMAGES = {
    "ILSVRC/imagenet-1k": 1_281_167,
    "timm/imagenet-22k-wds": 14_197_122,
    "frgfm/imagenette": 9_469,
    "digits": 1_437,
}
IMAGE_BYTES = 110_000  # of ImageNet's photos, on average


def plan_lines(
    options: PretrainOptions,
    meta_step: MetaStep,
    *,
    gpu: str,
    gpus: int,
    images: int | None,
    utilization: float | None,
    worker_rate: float,
) -> list[str]:
    """The plan of a recipe.

    Args:
        meta_step: makes the step whose operations are counted.
        gpu, gpus: which (a key of GPUS) and how many.
        images: in the data set; None where it is one that our recipes name.
        utilization: share of the peak of matrix products that is reached, in (0, 1]; None for what was measured.
        worker_rate: images a second that a core loads.

    Raises:
        UserError: a value is out of range, or the number of images is not known.
    """
    images = images or IMAGES.get(options.dataset or "")
    if images is None and options.max_steps is None:
        raise UserError(f"--images is missing: the size of {options.dataset or 'the data set'} is not known here")
    if gpus < 1 or not 0 < (1 if utilization is None else utilization) <= 1 or worker_rate <= 0 or (images or 1) < 1:
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
    pace = step_pace(options, config, cost, card, utilization)
    rate = gpus * batch / pace.seconds
    uncounted = "" if gpus == 1 else "; communication is not counted"
    seen = (options.max_steps * options.global_batch_size) if options.max_steps else options.epochs * (images or 0)
    return [
        *counted_lines(cost, batch),
        "estimated:",
        f"  memory of a GPU    {gib(cost.total_bytes)} of {card.memory:g} GiB: {memory_parts(cost)}",
        f"  fits               {'yes' if fits else 'no; ' + advice}",
        f"  rate               {rate:.0f} images/s on {gpus} x {gpu}: {pace.reason}{uncounted}",
        f"  worker cores       {math.ceil(rate / worker_rate)} at {worker_rate:g} images/s each",
        f"  data               {rate * IMAGE_BYTES / 1e6:.0f} MB/s, if an image has {IMAGE_BYTES / 1000:.0f} kB",
        f"  duration           {duration(seen / rate)} for {seen:,.0f} images",
    ]


class Pace(NamedTuple):
    """Seconds of a step, and what they rest on."""

    seconds: float
    reason: str


def step_pace(
    options: PretrainOptions, config: VISRegViTConfig, cost: Cost, card: Gpu, utilization: float | None
) -> Pace:
    """How long a step of `cost` takes on a card."""
    if utilization is not None:
        return Pace(cost.flops / (card.tflops * 1e12 * utilization), f"{utilization:.0%} of the peak, as given")
    how = "blocks" if options.compile in ("auto", "blocks") else "no"
    device = cost.flops / (card.tflops * 1e12 * REACHED[how])
    host = HOST_SECONDS[how] * config.num_hidden_layers / 12
    if host > device:
        reason = f"the host enqueues a step in {1000 * host:.0f} ms, the device needs {1000 * device:.0f}"
        return Pace(host, f"{reason}: more images a GPU cost nothing")
    named = {"blocks": "compiled blocks", "no": "no compiled blocks"}[how]
    return Pace(device, f"{REACHED[how]:.0%} of the peak, as a ViT-B on an H100 in bf16 with {named}")


def duration(seconds: float) -> str:
    """Hours, or days from two of them on."""
    return f"{seconds / 3600:.1f} hours" if seconds < 2 * 86400 else f"{seconds / 86400:.1f} days"


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
