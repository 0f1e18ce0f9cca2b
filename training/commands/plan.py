# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg plan`: what a recipe will need on given GPUs, before any of them is rented.

Operations are counted on the meta device; memory, rates and days are estimates and say so.
"""

import math

from ..errors import UserError, setting_up
from ..loop.assembly import check_crops, config_from, meta_step
from ..loop.config import parse
from ..loop.estimate import GPUS, USABLE, Cost, Gpu, largest_micro_batch, step_cost
from ..loop.plan import divided_batch
from .parsing import OneLineParser


# Training images of the data sets that our recipes name.
IMAGES = {
    "ILSVRC/imagenet-1k": 1_281_167,
    "timm/imagenet-22k-wds": 14_197_122,
    "frgfm/imagenette": 9_469,
    "digits": 1_437,
}


def main(argv: list[str]) -> None:
    """Print the plan of a recipe; takes the options of `visreg pretrain`, and its own."""
    parser = OneLineParser("plan", __doc__.split("\n")[0], epilog="All options of `visreg pretrain` are taken too.")
    parser.add_argument("--gpus", type=int, default=1, help="how many (default: 1)")
    parser.add_argument("--gpu", choices=sorted(GPUS), default="h100", help="which (default: h100)")
    parser.add_argument("--utilisation", type=float, default=0.35, help="share of the peak reached (default: 0.35)")
    parser.add_argument("--images", type=int, help="in the data set; known of those that our recipes name")
    parser.add_argument("--worker_rate", type=float, default=150, help="images a second and core (bench: data.py)")
    own, rest = parser.parse_known_args(argv)
    with setting_up():
        arguments = parse(rest, "visreg plan", needed=())
        own.images = own.images or IMAGES.get(arguments.data.dataset)
        if own.images is None and arguments.run.max_steps is None:
            raise UserError(
                f"--images is missing: the size of {arguments.data.dataset or 'the data set'} is not known here"
            )
        if own.gpus < 1 or not 0 < own.utilisation <= 1 or own.worker_rate <= 0 or (own.images or 1) < 1:
            raise UserError("gpus, images and worker_rate must be above 0, utilisation in (0, 1]")
        check_crops(config_from(arguments.model, arguments.data).patch_size, arguments.data)
        batch = divided_batch(arguments.run.global_batch_size, own.gpus)
        print("\n".join(plan(arguments, own, GPUS[own.gpu], batch)))


def plan(arguments, own, gpu: Gpu, batch: int) -> list[str]:
    """The lines of the plan for `batch` images on each of `own.gpus` GPUs."""
    data, run = arguments.data, arguments.run
    resolutions = data.resolutions()
    step = meta_step(arguments, config_from(arguments.model, data))
    width = 4 if run.mixed_precision == "no" else 2
    room = gpu.memory * 2**30 * USABLE
    cost = step_cost(step, resolutions, batch, min(run.micro_batch_size or batch, batch), width, own.gpus)
    fits = cost.total_bytes <= room
    micro = largest_micro_batch(step, resolutions, batch, width, room, own.gpus)
    rate = gpu.tflops * 1e12 * own.utilisation / (cost.flops / batch) * own.gpus
    images = (run.max_steps * run.global_batch_size) if run.max_steps else run.epochs * own.images
    advice = "nothing does" if micro is None else f"--micro_batch_size {micro} does"
    memory = {
        "weights and optimizer": cost.state_bytes,
        "activations": cost.activation_bytes,
        "objective": cost.objective_bytes,
    }
    parts = ", ".join(f"{name} {gib(count)}" for name, count in memory.items())
    return [
        *counted(cost, batch),
        "estimated:",
        f"  memory of a GPU    {gib(cost.total_bytes)} of {gpu.memory:g} GiB: {parts}",
        f"  fits               {'yes' if fits else 'no; ' + advice}",
        f"  rate               {rate:.0f} images/s on {own.gpus} x {own.gpu} at {own.utilisation:.0%} of the peak",
        f"  worker cores       {math.ceil(rate / own.worker_rate)} at {own.worker_rate:g} images/s each",
        f"  duration           {images / rate / 86400:.1f} days for {images:,.0f} images",
    ]


def counted(cost: Cost, batch: int) -> list[str]:
    return [
        "counted:",
        f"  parameters         {cost.parameters / 1e6:.1f} M, projector included",
        f"  a step of a GPU    {batch} images, {cost.tokens:,} tokens, {cost.flops / 1e12:.2f} TFLOP",
    ]


def gib(count: float) -> str:
    return f"{count / 2**30:.1f} GiB"
