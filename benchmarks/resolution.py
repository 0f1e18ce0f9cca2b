# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Segmentation before and after a run goes on at twice the resolution, on scenes that are made here.

    python -m benchmarks.resolution --output FOLDER [--minutes 5]

A scene is a 64 x 64 image of handwritten digits (scikit-learn's) of several sizes on a textured ground; its mask says
which pixels are of a digit. A small ViT learns at 32 px without labels, then goes on at 64 px as the recipe
`raise_resolution` does (`--image_size`), and, for as many updates, at 32 px. Mean IoU of a linear head on frozen patch
tokens, with 95% intervals over the test scenes: at 32 px, at 64 px before, and at 64 px after either. The four
measurements take two to three minutes of a CPU core besides the training.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from visreg_training.backbones import open_backbone
from visreg_training.evaluation import evaluate, open_sources
from visreg_training.evaluation.protocols.segment import SegmentOptions
from visreg_training.pretrain import pretrain

from .measuring import machine


SMALL, LARGE = 32, 64
COUNTS = {"train": 384, "test": 128}
NETWORK = {
    "model": "vit_tiny", "hidden_size": 96, "num_hidden_layers": 6, "num_attention_heads": 3, "patch_size": 4,
    "image_size": SMALL, "projection_size": 64, "projector_hidden_size": 256,
}  # fmt: skip
COMMON = {
    "image_column": "image", "num_slices": 512, "regularization_weight": 0.6, "num_global": 2, "num_local": 2,
    "global_scale": [0.3, 1.0], "local_scale": [0.1, 0.3], "flip_probability": 0, "global_batch_size": 64,
    "warmup_epochs": 1, "num_workers": 1, "log_every": 20, "online_probe": False, "overwrite": True,
}  # fmt: skip


def scene(digits: np.ndarray, draws: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """An image and its mask: 1 where a digit is, 0 elsewhere."""
    coarse = draws.integers(0, 110, (8, 8, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((LARGE, LARGE), Image.Resampling.BICUBIC)
    mask = Image.new("L", (LARGE, LARGE))
    for number in draws.integers(0, len(digits), draws.integers(2, 5)):
        side = int(draws.integers(14, 34))
        ink = Image.fromarray((digits[number] * 15.9).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        place = tuple(int(value) for value in draws.integers(0, LARGE - side, 2))
        color = tuple(int(value) for value in draws.integers(120, 256, 3))
        image.paste(color, place, ink)
        mask.paste(1, place, ink.point(lambda value: 255 * (value > 100)))
    return image, mask


def write_scenes(folder: Path, seed: int = 0) -> None:
    """Both splits as parquet; digits of the test scenes are in no training scene."""
    from datasets import Dataset, Features
    from datasets import Image as ImageFeature

    digits = load_digits()
    half = len(digits.images) // 2
    parts = {"train": slice(0, half), "test": slice(half, None)}
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for number, (split, count) in enumerate(COUNTS.items()):
        draws = np.random.default_rng([seed + 1, number])
        pairs = [scene(digits.images[parts[split]], draws) for _ in range(count)]
        columns = {"image": [pair[0] for pair in pairs], "mask": [pair[1] for pair in pairs]}
        rows = Dataset.from_dict(columns, features=Features({"image": ImageFeature(), "mask": ImageFeature()}))
        rows.to_parquet(str(folder / "data" / f"{split}-00000-of-00001.parquet"))


def train(folder: Path, data: Path, seconds: float, size: int, **options: Any) -> float:
    """One run that takes about so long, after an update was timed; returns the seconds it took."""
    where = {"dataset": str(data), "global_size": size, "local_size": size // 2}
    timed = pretrain(**COMMON, **where, **options, output_dir=str(folder), max_steps=8)
    steps = max(8, int(seconds / (timed["train_seconds"] / 8)))
    return pretrain(**COMMON, **where, **options, output_dir=str(folder), max_steps=steps, save_every=steps)[
        "train_seconds"
    ]


def mean_iou(run: Path, data: Path, size: int) -> dict[str, Any]:
    """Of a linear head on the frozen patch tokens of images of `size` pixels."""
    sources = open_sources(str(data), mask_column="mask", image_column="image")
    options = SegmentOptions(image_size=size, num_classes=2, epochs=5, batch_size=16, learning_rate=3e-3)
    result = evaluate(open_backbone(str(run)), sources, options)
    return {"size": size, "value": result["value"], "interval": result["interval"]}


def carry_out(output: Path, minutes: float) -> list[dict[str, Any]]:
    """Six tenths of the time for the first run, two for each continuation; a row for each measurement."""
    data = output / "scenes"
    write_scenes(data)
    first = output / "first"
    seconds = 60 * minutes
    train(first, data, 0.6 * seconds, SMALL, learning_rate=1e-3, **NETWORK)
    rows = [{"model": f"{SMALL} px"} | mean_iou(first, data, size) for size in (SMALL, LARGE)]
    for size in (SMALL, LARGE):
        folder = output / f"further_{size}"
        grid = {"image_size": size} if size != SMALL else {}
        train(folder, data, 0.2 * seconds, size, learning_rate=1e-4, initialize_from=str(first), **grid)
        rows.append({"model": f"{SMALL} px, then {size} px"} | mean_iou(folder, data, LARGE))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder of the scenes, the runs, resolution.json")
    parser.add_argument("--minutes", type=float, default=5, help="of training, about (default: 5)")
    arguments = parser.parse_args()
    started = time.perf_counter()
    rows = carry_out(arguments.output, arguments.minutes)
    (arguments.output / "resolution.json").write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1))
    print(f"\n{machine()}; {time.perf_counter() - started:.0f} s\n")
    print("| learned at | measured at | mean IoU |\n|---|---|---|")
    for row in rows:
        low, high = (100 * bound for bound in row["interval"])
        print(f"| {row['model']} | {row['size']} px | {100 * row['value']:.1f} ({low:.1f} to {high:.1f}) |")


if __name__ == "__main__":
    main()
