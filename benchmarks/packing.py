# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Images a second that one core prepares from a data set as it is, and from the same packed by `visreg pack`.

    python -m benchmarks.packing --data FOLDER [--images 256] [--sizes 384 256] [--rounds 3]

Rates are of CPU time in one thread (data.py): what a loader's worker does for 4 x 224 + 6 x 96 px. Sets take turns.
"""

import argparse
import tempfile
from itertools import islice
from pathlib import Path

import torch

from visreg_training.data import Source, Subset, open_stream
from visreg_training.data.options import PackOptions
from visreg_training.data.pack import pack

from .data import measure, worker


FORMATS = {"jpeg": 90, "webp": 80}  # the quality of each


def packed(source: Source, folder: Path, sizes: list[int]) -> dict[str, Source]:
    """The source in each size and format."""
    found = {}
    for size in sizes:
        for image_format, quality in FORMATS.items():
            place = folder / f"{image_format}-{size}"
            pack(source, place, PackOptions(size=size, image_format=image_format, quality=quality))
            found[f"{image_format} {quality}, {size} px"] = open_stream(place)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="what open_stream takes: a folder, a glob, a Hub id")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--sizes", type=int, nargs="+", default=[384, 256])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    share = open_stream(arguments.data, streaming=False)
    fraction = min(1.0, arguments.images / share.num_examples)
    source = open_stream(arguments.data, streaming=False, subset=Subset(fraction=fraction))
    with tempfile.TemporaryDirectory() as folder:
        sources = {"as it is": source} | packed(source, Path(folder), arguments.sizes)
        raws = {name: list(islice(one.raw_examples(), arguments.images)) for name, one in sources.items()}
        rates = dict.fromkeys(raws, 0.0)
        for _ in range(arguments.rounds):
            for name, images in raws.items():
                rates[name] = max(rates[name], measure({name: worker}, images, 1)[name])
    print(f"{source.num_examples} images of {source.name}, 4 x 224 + 6 x 96, images a second a core:\n")
    print("| images | KB an image | images a second a core | x as it is |\n|---|---|---|---|")
    for name, images in raws.items():
        kilobytes = sum(len(raw.data) if raw.data is not None else Path(raw.path).stat().st_size for raw in images)
        kilobytes /= 1000 * len(images)
        print(f"| {name} | {kilobytes:.1f} | {rates[name]:.0f} | {rates[name] / rates['as it is']:.2f} |")


if __name__ == "__main__":
    main()
