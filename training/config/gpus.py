# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The GPUs that `visreg plan` knows: memory and peak rates."""

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
