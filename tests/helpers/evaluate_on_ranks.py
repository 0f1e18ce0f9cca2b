# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Run on several ranks: kNN, linear on features and on augmented images, with batch sizes that divide nothing."""

import sys
from pathlib import Path

import torch

from visreg_training.commands.evaluate import main


def run(checkpoint: str, folder: Path) -> None:
    common = ["--model", checkpoint, "--dataset", "digits", "--cache_dir", str(folder / "cache"), "--batch_size", "53"]
    common += ["--limit", "301", "--output", str(folder)]
    main(["knn", *common])
    heads = ["--epochs", "2", "--head_batch_size", "77"]
    main(["linear", *common, *heads])
    main(["linear", *common, *heads, "--images", "augmented"])


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(sys.argv[1], Path(sys.argv[2]))
