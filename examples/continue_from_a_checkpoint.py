# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Go on from a trained backbone with images of one's own: fewer epochs and a tenth of the learning rate.

    visreg convert visreg-vit-b-inet1k.pth released        # the released weights, CC BY-NC 4.0
    python examples/continue_from_a_checkpoint.py my_photos --checkpoint released --output_dir adapted

The backbone, its patch size and width come from the checkpoint. The projector does too where one lies beside it (a run
of ours); the released weights have none, so it starts anew.
"""

import argparse

import torch
from transformers import AutoModel

import modeling_visreg  # noqa: F401 - makes AutoModel know the checkpoints of this package
from visreg_training.pretrain import pretrain


def distance(first: str, second: str) -> float:
    """How far training moved the weights: norm of the difference over the norm of the first."""
    one, two = (AutoModel.from_pretrained(name).state_dict() for name in (first, second))
    moved = sum((two[name] - weight).square().sum() for name, weight in one.items())
    return torch.sqrt(moved / sum(weight.square().sum() for weight in one.values())).item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("dataset", nargs="?", default="digits", help="folder of images (default: the embedded digits)")
    parser.add_argument("--checkpoint", default="runs/digits/model", help="directory or Hub id (default: the demo's)")
    parser.add_argument("--output_dir", default="adapted", help="folder of the new run (default: adapted)")
    parser.add_argument("--epochs", type=float, default=10, help="(default: 10)")
    parser.add_argument("--learning_rate", type=float, default=1e-4, help="a tenth of a fresh run's (default: 1e-4)")
    options = parser.parse_args()

    summary = pretrain(
        dataset=options.dataset,
        output_dir=options.output_dir,
        initialize_from=options.checkpoint,
        epochs=options.epochs,
        warmup_epochs=options.epochs / 10,
        learning_rate=options.learning_rate,
    )
    moved = distance(options.checkpoint, f"{options.output_dir}/model")
    print(f"\nloss {summary['final_loss']:.3f}; the weights moved by {moved:.1%} of their norm")


if __name__ == "__main__":
    main()
