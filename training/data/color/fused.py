# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The colors of a batch on an NVIDIA GPU: one copy of what is done to each crop, three kernels a resolution.

Legend: N crops of a batch over all resolutions; a resolution is (n, 3, H, W).
"""

import torch

from ...triton_support import runs_triton
from ..options import ColorOptions
from .filters import NEGLIGIBLE, blur_weights
from .parameters import AugmentParameters
from .transforms import ColorTransforms


# Pixels that a program works on at a time, and warps: the fastest of six to nine on an H100, 4 x 224 + 6 x 96 px.
_OFFSETS = {"BLOCK": 2048, "num_warps": 8}
_PIXELS = {"BLOCK": 512, "num_warps": 2}
_BLUR = {"ROWS": 32, "BLOCK": 32, "num_warps": 1}


def runs_fused(groups: list[torch.Tensor], options: ColorOptions) -> bool:
    """Whether the kernels color these uint8 (n, 3, H, W); torch refuses those that are narrower than the blur."""
    narrow = any(min(group.shape[-2:]) <= options.blur_kernel // 2 for group in groups)
    return not narrow and all(len(group) for group in groups) and runs_triton(groups[0].device)


def color_fused(
    groups: list[torch.Tensor],
    parameters: list[AugmentParameters],
    options: ColorOptions,
    outputs: list[torch.Tensor],
) -> None:
    """Writes the augmented, normalized crops of each resolution into its output, float32 of the same shape."""
    joined = AugmentParameters(*(torch.cat(field) for field in zip(*parameters, strict=True)))
    table = make_table(joined, options)
    device = groups[0].device
    if device.type == "cuda":
        table = table.pin_memory()
    rows = table.to(device, non_blocking=True).split([len(group) for group in groups])
    for images, part, output in zip(groups, rows, outputs, strict=True):
        _launch(images.contiguous(), part, output)


def make_table(parameters: AugmentParameters, options: ColorOptions) -> torch.Tensor:
    """(N, columns) float32 on the CPU, a row a crop; `kernels` names the columns."""
    transforms, count = ColorTransforms.of(parameters), len(parameters.hue)
    weights = blur_weights(parameters.sigma, options.blur_kernel)
    radius = ((weights > NEGLIGIBLE).sum(dim=1) - 1).clamp_(min=0) * parameters.blur
    scale = 1 / torch.tensor(options.std)
    shift = -torch.tensor(options.mean) * scale
    normalization = torch.cat([scale, shift]).expand(count, -1)
    threshold = torch.where(parameters.solarize, options.solarize_threshold, torch.inf)
    matrices = transforms[:4]
    means = [matrix.flatten(1).any(dim=1) for matrix in (transforms.first_mean, transforms.second_mean)]
    numbers = torch.stack([transforms.hue, parameters.jitter, *means, radius, threshold], dim=1)
    return torch.cat([*(matrix.flatten(1) for matrix in matrices), numbers, normalization, weights], 1)


def _launch(images: torch.Tensor, table: torch.Tensor, output: torch.Tensor) -> None:
    """Three kernels for one resolution."""
    from .kernels import blur_kernel, offsets_kernel, pixels_kernel

    (count, _, height, width), columns = images.shape, table.shape[1]
    pixels = height * width
    offsets = torch.empty((count, 6), device=images.device)
    sharp = torch.empty_like(output)
    tiles = -(-pixels // _PIXELS["BLOCK"])
    offsets_kernel[(count,)](images, table, offsets, pixels, COLUMNS=columns, **_OFFSETS)
    pixels_kernel[(count * tiles,)](images, table, offsets, sharp, output, pixels, tiles, COLUMNS=columns, **_PIXELS)
    parts = -(-height // _BLUR["ROWS"]) * -(-width // _BLUR["BLOCK"])
    blur_kernel[(count * 3 * parts,)](sharp, table, output, height, width, COLUMNS=columns, **_BLUR)
