# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The command: see the folder's `__init__.py`."""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ..measuring import in_fresh_process
from . import coloring, losses, pretrain
from .report import draw, tables
from .timing import card, peak_tflops
from .waves import Wave


PEER = "timm + lightly"
# Sides that fit onto a card of 80 GB together, with what compiles beside them; each with its model and batch.
WAVES = [
    [("ours, compiled blocks", "B/16", 64), ("ours, compiled blocks", "S/16", 64)],
    [("ours, eager", "B/16", 64), ("ours, compiled blocks", "B/16", 16)],
    [(f"{PEER}, eager", "B/16", 64), (f"{PEER}, eager", "S/16", 64)],
    [("ours, compiled blocks", "L/14", 16), (f"{PEER}, eager", "L/14", 16)],
]
PEER_COMPILED = [(f"{PEER}, compiled", "B/16", 64)]
WHOLE_MODEL = [("ours, compiled model", "B/16", 64)]
TOY_WAVES = [[("ours, eager", "toy", 8), (f"{PEER}, eager", "toy", 8)]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", help="data set of photos for `visreg pretrain`; without it that part is left out")
    parser.add_argument("--output", type=Path, help="folder for gpu.json and gpu.png")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="of `visreg pretrain`")
    parser.add_argument("--whole_model", action="store_true", help="compile the whole model, too: two minutes more")
    parser.add_argument("--small", action="store_true", help="toy sizes, to see that everything runs")
    arguments = parser.parse_args()
    started = time.perf_counter()
    found: dict = {"card": card(), "cores": os.cpu_count(), "peak_tflops": peak_tflops(), "pretrain": [], "steps": []}
    for _part in parts(arguments, found):  # kept as they come: a machine may be lent for less time than they take
        found["seconds"] = time.perf_counter() - started
        if arguments.output:
            arguments.output.mkdir(parents=True, exist_ok=True)
            (arguments.output / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    print(f"{tables(found)}\n\nin {found['seconds']:.0f} s")
    if arguments.output:
        draw(found, arguments.output / "gpu.png")


def parts(arguments: argparse.Namespace, found: dict) -> Iterator[str]:
    """Measure one part after the other, into `found`."""
    small = arguments.small
    found["losses"] = in_fresh_process("gpu.losses", losses.SMALL if small else losses.CASES)
    yield "losses"
    batches, resolutions = ([2], coloring.SMALL) if small else ([64, 128], coloring.RESOLUTIONS)
    found["coloring"] = in_fresh_process("gpu.coloring", batches, resolutions)
    yield "coloring"
    for batch, steps in [(8, 4)] if small else [(128, 60), (64, 60)]:
        if arguments.photos:
            found["pretrain"].append(pretrain.measure(arguments.photos, batch, steps, arguments.workers, small))
            yield "pretrain"
    slow = [] if small else PEER_COMPILED + (WHOLE_MODEL if arguments.whole_model else [])
    late = Wave("steps", slow) if slow else None  # they compile for a minute, beside the others, and are timed last
    for wave in TOY_WAVES if small else WAVES:
        found["steps"] += [row for row in Wave("steps", wave).results() if row is not None]
        yield "steps"
    found["features"] = in_fresh_process("gpu.features", *((4, 32) if small else (256, 224)), small)
    yield "features"
    if late is not None:
        found["steps"] += [row for row in late.results() if row is not None]
        yield "steps"


if __name__ == "__main__":
    main()
