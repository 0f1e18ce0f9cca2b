# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Run by torchrun: a suite in which one data set fails on the main process, one on another; a third works."""

import sys
from pathlib import Path

import torch

from visreg_training.backbones import open_backbone
from visreg_training.evaluation.features import FeatureCache
from visreg_training.evaluation.run import Request, run_suite


def run(checkpoint: str, folder: Path) -> None:
    sources = {"dtd": str(folder / "single"), "cifar10": str(folder / "broken"), "cifar100": "digits"}
    request = Request("knn", ks=(1, 5))
    cache = FeatureCache(folder / "cache")
    results, unreached = run_suite(
        open_backbone(checkpoint), ",".join(sources), request, folder / "out", cache, sources
    )
    # A line at once: two processes write here.
    sys.stdout.write(f"{len(results)} {sorted(unreached.items())}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(sys.argv[1], Path(sys.argv[2]))
