# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg preview`: a contact sheet of what a recipe would train on, and the facts of its source.

Takes the options of `visreg pretrain`, and `--output`, `--count` of its own.
"""

import sys
from pathlib import Path

import torch

from ..data import preview
from ..errors import setting_up
from ..loop.assembly import fill_defaults, make_augment, make_views, open_training_source
from ..loop.config import parse
from .parsing import OneLineParser


def main(argv: list[str]) -> None:
    """Write the sheet and print size, columns, shards and the rate of one worker."""
    parser = OneLineParser("preview", __doc__.split("\n")[0], epilog="All options of `visreg pretrain` are taken too.")
    parser.add_argument("--output", type=Path, default=Path("preview.png"), help="PNG to write (default: preview.png)")
    parser.add_argument("--count", type=int, default=8, help="images shown (default: 8)")
    own, rest = parser.parse_known_args(argv)
    with setting_up():
        arguments = parse(rest, "visreg preview", needed=("dataset",))
        source = open_training_source(arguments.data, arguments.run.seed)
        if "config" not in arguments.given:
            fill_defaults(arguments, source, torch.device("cpu"), processes=1)
        views, augment = make_views(arguments.data), make_augment(arguments.data)
        facts = preview(source, views, augment, own.output, own.count, arguments.run.seed)
    for name, value in facts.items():
        sys.stdout.write(f"{name:<18} {value}\n")
