# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg plan`: what a recipe will need on given GPUs, before any of them is rented.

Operations are counted on the meta device; memory, rates and days are estimates and say so.
"""

from pathlib import Path

from ..config import PretrainOptions, add_pretrain_options, parse_options
from ..config.gpus import GPUS
from ..errors import UserError, setting_up
from ..parser import OneLineParser


def main(argv: list[str]) -> None:
    """Print the plan of a recipe; takes the options of `visreg pretrain`, and its own."""
    parser = OneLineParser("plan", __doc__.split("\n")[0])
    parser.add_argument("--gpus", type=int, default=1, help="how many (default: 1)")
    parser.add_argument("--gpu", choices=sorted(GPUS), default="h100", help="which (default: h100)")
    parser.add_argument("--utilization", type=float, help="share of the peak reached (default: what was measured)")
    parser.add_argument(
        "--images", type=int, help="in the data set; known of local ones and of those that our recipes name"
    )
    rate = "images a second and worker (default: 100, what hyper-threads make of ImageNet's photos)"
    parser.add_argument("--worker_rate", type=float, default=100, help=rate)
    add_pretrain_options(parser)
    with setting_up():
        options, own = parse_options(parser, argv, needed=())
        from ..config.plan import plan_lines
        from ..loop.run import build_step_on_meta, find_other_start

        if start := find_other_start(options):
            raise UserError(f"{start.name} is not our own ViT, and of others nothing is estimated: start it and see")
        images = own.images or images_here(options)
        lines = plan_lines(
            options,
            build_step_on_meta,
            gpu=own.gpu,
            gpus=own.gpus,
            images=images,
            utilization=own.utilization,
            worker_rate=own.worker_rate,
        )
    print("\n".join(lines))


def images_here(options: PretrainOptions) -> int | None:
    """Images of a local data set; None of one on the Hub, of which nothing is downloaded for a plan."""
    if not options.dataset or not Path(options.dataset).expanduser().exists():
        return None
    from ..loop.run import open_training_source

    return open_training_source(options).num_examples
