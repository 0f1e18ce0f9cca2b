# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The GPUs that `visreg plan` knows: memory, peak rates, and what of them a step of ours was measured to reach."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """Memory in GiB and peak of dense bf16 matrix products in TFLOP/s, from the makers' data sheets."""

    memory: float
    tflops: float


USABLE = 0.9  # share of a GPU's memory that a step may fill; the rest goes to CUDA, fragments and buckets

GPUS = {
    "a10g": Gpu(24, 70),
    "l4": Gpu(24, 121),
    "rtx4090": Gpu(24, 165),
    "l40s": Gpu(48, 362),
    "a100-40": Gpu(40, 312),
    "a100-80": Gpu(80, 312),
    "h100": Gpu(80, 989),
    "h200": Gpu(141, 989),
    "b200": Gpu(180, 2250),
}

# Share of the data sheet's peak that whole steps of a ViT-B/16 reached on one H100: bf16, 4 x 224 + 6 x 96 px, 64 and
# 128 images (benchmarks/RESULTS.md, "On a GPU"). Other widths and cards are assumed to reach the same share.
REACHED = {"blocks": 0.33, "no": 0.25}
# Seconds in which that machine's host enqueued a step of 12 blocks, which no smaller batch makes shorter.
HOST_SECONDS = {"blocks": 0.037, "no": 0.076}
