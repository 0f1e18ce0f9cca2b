# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg analyze NAME`: the paper's analyses, each a record (JSON), a figure and verdicts; `all` also makes one page
of them.

visreg analyze collapse
visreg analyze all --scale small --output_dir runs/analysis
"""

import os
from pathlib import Path

import torch

from ..analysis.options import ANALYSES, SCALES, Options
from ..analysis.run import analyze
from ..errors import UserError
from .parsing import OneLineParser


def main(argv: list[str]) -> None:
    """Raises UserError for a mistake."""
    if not argv or argv[0] in ("-h", "--help"):
        lines = "\n".join(
            f"  {name:<15} {words}" for name, words in {**ANALYSES, "all": "every one, and a report"}.items()
        )
        print(f"usage: visreg analyze NAME [options]; `visreg analyze NAME --help` lists the options\n\n{lines}")
        return
    name, rest = argv[0], argv[1:]
    if name not in ANALYSES and name != "all":
        raise UserError(f"there is no analysis '{name}'; there are {', '.join(ANALYSES)} and all")
    analyze(list(ANALYSES) if name == "all" else [name], options_from(name, rest))


def options_from(name: str, argv: list[str]) -> Options:
    parser = OneLineParser(f"analyze {name}", ANALYSES.get(name, "every analysis, and a report"))
    parser.add_argument(
        "--scale",
        choices=SCALES,
        default="small",
        help="small: minutes on CPU cores (default); paper: its sizes, for GPUs",
    )
    parser.add_argument(
        "--dataset", help="Hub id, folder or 'digits'; default: uoft-cs/cifar10, at paper scale the recipe's"
    )
    parser.add_argument(
        "--config", help="recipe that trainings start from; default: ours, at paper scale vit_small_imagenette"
    )
    parser.add_argument("--eval_split", help="held-out split of it; default: the recipe's")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0 on (default 3; intervals need 2)")
    parser.add_argument("--max_steps", type=int, help="updates of a training; default: the recipe's")
    parser.add_argument("--output_dir", type=Path, default=Path("runs/analysis"), help="default: runs/analysis")
    parser.add_argument("--workers", type=int, help="trainings at a time; default: one a GPU, or a CPU core")
    own = parser.parse_args(argv)
    workers = own.workers if own.workers is not None else torch.cuda.device_count() or os.cpu_count() or 1
    for option, value in (("seeds", own.seeds), ("workers", workers), ("max_steps", own.max_steps)):
        if value is not None and value < 1:
            raise UserError(f"{option} must be above 0, not {value}")
    taken = (own.dataset, own.config, own.max_steps, own.eval_split)
    return Options(own.output_dir, own.scale, tuple(range(own.seeds)), workers, *taken)
