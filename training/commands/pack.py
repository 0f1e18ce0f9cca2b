# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg pack`: a data set as parquet files of smaller images, which are quicker to load and to copy.

visreg pack --dataset photos --output packed --size 256
visreg pack --dataset ILSVRC/imagenet-1k --split validation --output packed --image_format webp --quality 80
"""

import os
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.options import PackOptions, SourceOptions, SubsetOptions
from ..errors import UserError, setting_up
from ..machine import check_workers
from .flags import flat_parser, parse, part


if TYPE_CHECKING:
    from ..data.pack import PackReport


def main(argv: list[str]) -> None:
    """Raises UserError for a mistake, RunStopped where too much cannot be read."""
    needed = ("dataset", "output")
    parser = flat_parser(
        "pack",
        "a data set as parquet files of smaller images",
        SubsetOptions,
        SourceOptions,
        PackOptions,
        needed=needed,
    )
    parser.add_argument("--output", type=Path, help="folder to write; the same command goes on after a kill")
    parser.add_argument("--num_workers", type=int, help="processes; 0: this one alone (default: one for each core)")
    parser.add_argument(
        "--max_bad_share", type=float, default=0.01, help="share of unreadable images that ends it (default: 0.01)"
    )
    given = parse(parser, argv, needed)
    workers = (os.cpu_count() or 1) if given.num_workers is None else given.num_workers
    if workers < 0:
        raise UserError(f"num_workers must be 0 or above, not {workers}")
    check_workers(workers)
    if not 0 <= given.max_bad_share <= 1:
        raise UserError(f"max_bad_share must lie in [0, 1], not {given.max_bad_share}")
    with setting_up():
        options = part(PackOptions, given)
        from ..data import Subset, open_stream
        from ..data.pack import pack

        where, subset = asdict(part(SourceOptions, given)), part(Subset, given)
        source = open_stream(**where, subset=subset, max_bad_share=given.max_bad_share)
        root = os.path.abspath(os.path.expanduser(given.dataset))
        report = pack(source, given.output, options, root=root, num_workers=workers, max_bad_share=given.max_bad_share)
    print(summary(report, given.output, source.split), file=sys.stderr)


def summary(report: "PackReport", folder: Path, split: str) -> str:
    """What was written, and what was left out."""
    lines = [
        f"{report.images:,} images in {report.files} parquet files below {folder / 'data'}: "
        f"{report.before / 1e6:,.1f} MB before, {report.after / 1e6:,.1f} now; {report.copied:,} copied as they were"
    ]
    if report.skipped:
        kinds = ", ".join(f"{kind} {count}" for kind, count in Counter(r["kind"] for r in report.skipped).items())
        lines.append(f"{len(report.skipped)} left out ({kinds}), listed in {folder / f'skipped-{split}.jsonl'}")
    return "\n".join(lines)
