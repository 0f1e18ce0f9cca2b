# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Run on several ranks: a suite in which one data set fails on the main process, one on another; a third works."""

import sys
from pathlib import Path

import torch

from visreg_training.backbones import open_backbone
from visreg_training.evaluation.cache import FeatureCache
from visreg_training.evaluation.protocols.knn import KnnOptions
from visreg_training.evaluation.suite import run_suite


def run(checkpoint: str, folder: Path) -> None:
    sources = {"dtd": str(folder / "single"), "cifar10": str(folder / "broken"), "cifar100": "digits"}
    backbone, options, cache = open_backbone(checkpoint), KnnOptions(k=(1, 5)), FeatureCache(folder / "cache")
    results, unreached = run_suite(backbone, ",".join(sources), options, folder / "out", cache=cache, sources=sources)
    # A line at once: two processes write here.
    sys.stdout.write(f"{len(results)} {sorted(unreached.items())}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    run(sys.argv[1], Path(sys.argv[2]))
