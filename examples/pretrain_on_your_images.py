# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Pretrain on a folder of images from Python, and load the model that comes out.

    python examples/pretrain_on_your_images.py my_photos --output_dir out

What is not given here is chosen from the images and the device, printed with its reason, and kept in out/recipe.yaml.
Started again after an interruption, it goes on where it stopped.
"""

import argparse

from transformers import AutoImageProcessor, AutoModel

import modeling_visreg  # noqa: F401 - makes AutoModel know the checkpoints of this package
from visreg_training.data import open_stream
from visreg_training.pretrain import pretrain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", nargs="?", default="digits", help="folder of images (default: the embedded digits)")
    parser.add_argument("--output_dir", default="out", help="folder of the run (default: out)")
    parser.add_argument("--epochs", type=float, help="default: by the number of images and the device")
    parser.add_argument("--num_workers", type=int, help="processes that decode and crop (default: by the CPU cores)")
    options = parser.parse_args()

    given = {"epochs": options.epochs, "num_workers": options.num_workers}  # any option of a recipe goes here
    given = {name: value for name, value in given.items() if value is not None}
    summary = pretrain(dataset=options.dataset, output_dir=options.output_dir, resume="auto", **given)

    processor = AutoImageProcessor.from_pretrained(f"{options.output_dir}/model")
    model = AutoModel.from_pretrained(f"{options.output_dir}/model").eval()
    image, _label, _id = next(iter(open_stream(options.dataset).examples()))
    features = model(**processor(image, return_tensors="pt")).pooler_output
    print(
        f"\nloss {summary['final_loss']:.3f} after {summary['images_seen']} images; features {tuple(features.shape)}"
    )


if __name__ == "__main__":
    main()
