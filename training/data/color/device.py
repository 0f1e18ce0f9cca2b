# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Color on the device: jitter, grayscale, blur, solarize and normalize of a whole batch, with parameters per crop.

Each operation alone equals torchvision's for the same parameter. Together they differ in one thing: brightness,
contrast and saturation that follow one another (and grayscale, and the normalization) are composed into one 3 x 4
transform per crop, so values are clamped to [0, 1] once before hue and once after all, not after each operation, and
contrast turns about the mean of the unclamped image. Where nothing leaves [0, 1] on the way, nothing differs.

All random numbers come from the CPU: the same generator gives the same views on every device. Everything that depends
on them is computed there, including which operations apply to which crops, and goes to the device in one copy (from
pinned memory to a GPU, so that the CPU does not wait for it); nothing is read back. On an NVIDIA GPU kernels of our
own do what torch's operations, grouped by what applies, do elsewhere: hundreds of launches would cost more than the
work.

Legend: N crops of a batch, n of a part of it, C = 3, P = H x W pixels; images (N, C, H, W).
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from torch import nn

from .filters import NEGLIGIBLE, blur_weights, gaussian_blur, solarized
from .fused import color_fused, runs_fused
from .parameters import AugmentParameters, color_options, sample_parameters
from .scratch import Scratch
from .transforms import ColorTransforms


# On a CPU, this many pixels are processed at a time, which keeps them in the cache of a core.
_CPU_CHUNK_PIXELS = 1 << 16


class DeviceAugment(nn.Module):
    """The color part of the augmentation.

    Args:
        **options: fields of `ColorOptions`, with the paper's values as defaults.

    Raises:
        ValueError: for a value out of range.
        TypeError: for an unknown option.
    """

    def __init__(self, **options: Any):
        super().__init__()
        self.options = color_options(**options)

    def sample(self, count: int, generator: torch.Generator | None = None) -> AugmentParameters:
        """Draws the parameters of `count` crops from a CPU generator."""
        return sample_parameters(self.options, count, generator)

    @torch.no_grad()
    def forward(
        self, images: torch.Tensor, generator: torch.Generator | None = None, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """uint8 (N, 3, H, W) on any device -> float32 (N, 3, H, W), augmented and normalized.

        Args:
            images: the crops.
            generator: of the CPU; None is torch's global one.
            out: a tensor to write into, of an earlier call: on a CPU, a new one is paid for in page faults.

        Raises:
            ValueError: images of another type or shape.
        """
        return self.color([images], generator, None if out is None else [out])[0]

    @torch.no_grad()
    def color(
        self,
        groups: list[torch.Tensor],
        generator: torch.Generator | None = None,
        outputs: list[torch.Tensor] | None = None,
    ) -> list[torch.Tensor]:
        """As `forward` for several resolutions of a batch one after the other, which share the copy to a GPU."""
        for images in groups:
            if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
                raise ValueError(f"DeviceAugment takes uint8 (N, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        parameters = [self.sample(len(images), generator) for images in groups]
        return self._apply(groups, parameters, outputs)

    def apply_parameters(
        self, images: torch.Tensor, parameters: AugmentParameters, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As `forward`, with given parameters."""
        return self._apply([images], [parameters], None if out is None else [out])[0]

    def _apply(
        self, groups: list[torch.Tensor], parameters: list[AugmentParameters], outputs: list[torch.Tensor] | None
    ) -> list[torch.Tensor]:
        if outputs is None:
            outputs = [torch.empty(images.shape, device=images.device) for images in groups]
        if runs_fused(groups, self.options):
            color_fused(groups, parameters, self.options, outputs)
        else:
            for images, drawn, output in zip(groups, parameters, outputs, strict=True):
                self.color_in_groups(images, drawn, output)
        return outputs

    def color_in_groups(self, images: torch.Tensor, parameters: AugmentParameters, output: torch.Tensor) -> None:
        """Colors by torch's operations, those crops together to which the same ones apply."""
        device = images.device
        weights = blur_weights(parameters.sigma, self.options.blur_kernel)
        radii = ((weights > NEGLIGIBLE).sum(dim=1) - 1).clamp(min=0)
        chunk = len(images)
        if device.type == "cpu":
            chunk = max(1, _CPU_CHUNK_PIXELS // (images.shape[-1] * images.shape[-2]))
        parts = [(flags, crops) for flags, group in _groups(parameters) for crops in group.split(chunk)]
        if not parts:
            return
        order = torch.cat([crops for _, crops in parts])
        transforms = ColorTransforms.of(AugmentParameters(*(values[order] for values in parameters)))
        scale = 1 / torch.tensor(self.options.std)
        shift = -torch.tensor(self.options.mean) * scale
        index, taps, scale, shift, *fields = _to_device((order, weights[order], scale, shift, *transforms), device)
        index, normalization = index.long(), (shift[:, None, None], scale[:, None, None])
        start, scratch = 0, Scratch(device)
        for flags, crops in parts:
            part = slice(start, start + len(crops))
            colors = ColorTransforms(*(field[part] for field in fields))
            pixels = _load(images, index[part], scratch)
            pixels = self._augment(pixels, flags, colors, taps[part, : int(radii[crops].max()) + 1], scratch)
            _store(output, index[part], pixels, *normalization)
            start = part.stop

    def _augment(
        self,
        images: torch.Tensor,
        flags: tuple[bool, bool, bool],
        transforms: ColorTransforms,
        taps: torch.Tensor,
        scratch: Scratch,
    ) -> torch.Tensor:
        """Crops (n, 3, H, W), 0 to 255, that are all jittered or all not, and so on: float32 in [0, 1]."""
        jitter, blur, solarize = flags
        color = transforms.jitter if jitter else transforms.plain
        result = color(images.flatten(2), scratch).view(images.shape)
        if blur:
            result = gaussian_blur(result, taps, scratch)
        return solarized(result, self.options.solarize_threshold, scratch) if solarize else result


def _groups(parameters: AugmentParameters) -> Iterator[tuple[tuple[bool, bool, bool], torch.Tensor]]:
    """Crops to which the same operations apply: (jitter, blur, solarize) and their indices, by the width of the blur.
    Nothing has to be masked within one.
    """
    order = parameters.sigma.argsort()
    for flags in product((False, True), repeat=3):
        jitter, blur, solarize = flags
        same = (parameters.jitter == jitter) & (parameters.blur == blur) & (parameters.solarize == solarize)
        if same.any():
            yield flags, order[same[order]]


def _to_device(values: tuple[torch.Tensor, ...], device: torch.device) -> list[torch.Tensor]:
    """CPU tensors as float32 on the device, in one copy that the CPU does not wait for; exact for indices < 2^24."""
    packed = torch.cat([value.float().flatten() for value in values])
    if device.type == "cuda":
        packed = packed.pin_memory()
    parts = packed.to(device, non_blocking=True).split([value.numel() for value in values])
    return [part.view(value.shape) for part, value in zip(parts, values, strict=True)]


def _load(images: torch.Tensor, index: torch.Tensor, scratch: Scratch) -> torch.Tensor:
    """Crops of the batch as float32, 0 to 255."""
    pixels = scratch("pixels", (len(index), *images.shape[1:]))
    if images.device.type != "cpu":
        return pixels.copy_(images.index_select(0, index))
    for row, crop in zip(index.tolist(), pixels, strict=True):
        crop.copy_(images[row])
    return pixels


def _store(
    output: torch.Tensor, index: torch.Tensor, part: torch.Tensor, shift: torch.Tensor, scale: torch.Tensor
) -> None:
    """Writes crops, normalized, to their rows of the output."""
    if output.device.type != "cpu":
        output.index_copy_(0, index, part.mul(scale).add_(shift))
        return
    for row, crop in zip(index.tolist(), part, strict=True):  # four times faster than index_copy_ on a CPU
        torch.mul(crop, scale, out=output[row]).add_(shift)
