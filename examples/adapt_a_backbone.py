# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Adapt a trained backbone to images of one's own, all of it and by adapters, and see how far the features moved.

    python examples/adapt_a_backbone.py my_photos --start runs/digits/model --output_dir adapted --epochs 3

Adapters (LoRA) need PEFT: pip install '.[lora]'; without it only the whole network is adapted. A similarity near 1
says that little changed, which is no merit: measure with labels (`visreg evaluate knn`) before one of them is used.
"""

import argparse
from importlib.util import find_spec

import torch

from visreg_training.backbones import open_backbone
from visreg_training.data import open_stream
from visreg_training.evaluation import extract_features
from visreg_training.pretrain import pretrain


def similarity(start: str, adapted: str, dataset: str, images: int) -> float:
    """Mean cosine of the features of some images in two models."""
    rows = []
    for model in (start, adapted):
        examples = open_stream(dataset).examples(limit=images, seed=0)
        rows.append(torch.nn.functional.normalize(extract_features(open_backbone(model), examples).features, dim=1))
    return (rows[0] * rows[1]).sum(1).mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", nargs="?", default="digits", help="folder of images (default: the embedded digits)")
    parser.add_argument("--start", default="runs/digits/model", help="directory or Hub id (default: the demo's)")
    parser.add_argument("--output_dir", default="adapted", help="folder of the runs (default: adapted)")
    parser.add_argument("--epochs", type=float, help="(default: chosen from the images)")
    parser.add_argument("--rank", type=int, default=8, help="of the adapters (default: 8)")
    parser.add_argument("--images", type=int, default=64, help="that are compared (default: 64)")
    options = parser.parse_args()

    ways = {"whole": {}} | ({"lora": {"lora_rank": options.rank}} if find_spec("peft") else {})
    length = {"epochs": options.epochs} if options.epochs else {}
    for name, way in ways.items():
        folder = f"{options.output_dir}/{name}"
        pretrain(dataset=options.dataset, output_dir=folder, initialize_from=options.start, **length, **way)
    for name in ways:
        cosine = similarity(options.start, f"{options.output_dir}/{name}", options.dataset, options.images)
        print(f"{name:<6} similarity to the start: {cosine:.3f}")


if __name__ == "__main__":
    main()
