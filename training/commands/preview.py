# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg preview`: a contact sheet of what a recipe would train on, and the metadata of its source.

Takes the options of `visreg pretrain`, and `--output`, `--count` of its own.
"""

from pathlib import Path

from ..config import add_pretrain_options, parse_options
from ..errors import UserError, setting_up
from ..parser import OneLineParser


def main(argv: list[str]) -> None:
    """Write the sheet and print what the source is, and the rate of one worker."""
    parser = OneLineParser("preview", __doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=Path("preview.png"), help="PNG to write (default: preview.png)")
    parser.add_argument("--count", type=int, default=8, help="images shown, across the classes (default: 8)")
    add_pretrain_options(parser)
    with setting_up():
        options, own = parse_options(parser, argv, needed=("dataset",))
        if own.count < 1:
            raise UserError(f"--count must be at least 1, not {own.count}")
        import torch

        from ..config.defaults import fill_defaults
        from ..data.crops import check_pixels
        from ..data.preview import facts, preview
        from ..data.sources import check_output
        from ..loop.run import open_training_source
        from ..loop.views import build_augment, build_multi_crop

        check_pixels(options)
        check_output(own.output, options.dataset)
        source = open_training_source(options)
        if "config" not in options.given:
            options, _lines = fill_defaults(options, source, torch.device("cpu"), processes=1)
        views, augment = build_multi_crop(options), build_augment(options)
        metadata = preview(source, views, augment, own.output, own.count, options.seed)
    for label, text in facts(metadata):
        print(f"{label:<12} {text}")
