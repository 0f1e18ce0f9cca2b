# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Colour on the device: jitter, grayscale, blur, solarize and normalise of a whole batch, with parameters a crop.

Each operation alone equals torchvision's for the same parameter. Together they differ in one thing: brightness,
contrast and saturation that follow one another (and grayscale, and the normalisation) are composed into one 3 x 4
transform a crop, so values are clamped to [0, 1] once before hue and once after all, not after each operation, and the
mean that contrast turns about is that of the unclamped image. Where nothing leaves [0, 1] on the way, nothing differs.

All random numbers come from the CPU: the same generator gives the same views on every device. Everything that depends
on them is worked out there, what is to be done to which crops included, and goes to the device in one copy (from
pinned memory to a GPU, so that the CPU does not wait for it); nothing is read back.

Legend: N crops of a batch, n of a part of it, C = 3, P = H x W pixels; images (N, C, H, W).
"""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import torch
from torch import nn

from .colour import ColourOptions


# ITU-R 601-2 luma, as torchvision takes it.
_LUMA = (0.2989, 0.587, 0.114)
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)
# On a CPU, crops are worked on so many pixels at a time, which keeps them in the cache of a core.
_CPU_CHUNK_PIXELS = 1 << 16
# Taps of the blur that are left out: together they move a value by less than 1e-5.
_NEGLIGIBLE = 1e-6


class AugmentParameters(NamedTuple):
    """What is done to each of N crops; all tensors on the CPU, (N,) unless said.

    Attributes:
        jitter: bool, whether the four factors apply.
        order: (N, 4) the order of brightness 0, contrast 1, saturation 2, hue 3.
        brightness, contrast, saturation: factors, 1 changes nothing.
        hue: shift in turns, -0.5 to 0.5.
        grayscale, blur, solarize: bool.
        sigma: of the blur, in pixels.
    """

    jitter: torch.Tensor
    order: torch.Tensor
    brightness: torch.Tensor
    contrast: torch.Tensor
    saturation: torch.Tensor
    hue: torch.Tensor
    grayscale: torch.Tensor
    blur: torch.Tensor
    sigma: torch.Tensor
    solarize: torch.Tensor


class DeviceAugment(nn.Module):
    """The colour part of the augmentation.

    Args:
        **options: fields of `ColourOptions`, with the paper's values as defaults.

    Raises:
        ValueError: for a value out of range.
        TypeError: for an unknown option.
    """

    def __init__(self, **options: Any):
        super().__init__()
        self.options = ColourOptions(**options)

    def sample(self, count: int, generator: torch.Generator | None = None) -> AugmentParameters:
        """Draws the parameters of `count` crops from a CPU generator."""
        draws = torch.rand((9, count), generator=generator)
        order = torch.rand((count, 4), generator=generator).argsort(dim=1)
        options = self.options
        low, high = options.blur_sigma

        def factor(draw: torch.Tensor, strength: float) -> torch.Tensor:
            smallest = max(0.0, 1 - strength)
            return smallest + draw * (1 + strength - smallest)

        return AugmentParameters(
            jitter=draws[0] < options.jitter_probability,
            order=order,
            brightness=factor(draws[1], options.brightness),
            contrast=factor(draws[2], options.contrast),
            saturation=factor(draws[3], options.saturation),
            hue=(2 * draws[4] - 1) * options.hue,
            grayscale=draws[5] < options.grayscale_probability,
            blur=draws[6] < options.blur_probability,
            sigma=low + draws[7] * (high - low),
            solarize=draws[8] < options.solarize_probability,
        )

    @torch.no_grad()
    def forward(
        self, images: torch.Tensor, generator: torch.Generator | None = None, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """uint8 (N, 3, H, W) on any device -> float32 (N, 3, H, W), augmented and normalised.

        Args:
            images: the crops.
            generator: of the CPU; None is torch's global one.
            out: a tensor to write into, of an earlier call: on a CPU, a new one is paid for in page faults.

        Raises:
            ValueError: images of another type or shape.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"DeviceAugment takes uint8 (N, 3, H, W), got {images.dtype} {tuple(images.shape)}")
        return self.apply_parameters(images, self.sample(len(images), generator), out)

    def apply_parameters(
        self, images: torch.Tensor, parameters: AugmentParameters, out: torch.Tensor | None = None
    ) -> torch.Tensor:
        """As `forward`, with given parameters."""
        device = images.device
        output = torch.empty(images.shape, device=device) if out is None else out
        weights = blur_weights(parameters.sigma, self.options.blur_kernel)
        radii = ((weights > _NEGLIGIBLE).sum(dim=1) - 1).clamp(min=0)
        chunk = len(images)
        if device.type == "cpu":
            chunk = max(1, _CPU_CHUNK_PIXELS // (images.shape[-1] * images.shape[-2]))
        parts = [(flags, crops) for flags, group in _groups(parameters) for crops in group.split(chunk)]
        if not parts:
            return output
        order = torch.cat([crops for _, crops in parts])
        transforms = ColourTransforms.of(AugmentParameters(*(values[order] for values in parameters)))
        scale = 1 / torch.tensor(self.options.std)
        shift = -torch.tensor(self.options.mean) * scale
        index, taps, scale, shift, *fields = _to_device((order, weights[order], scale, shift, *transforms), device)
        index, normalise = index.long(), (shift[:, None, None], scale[:, None, None])
        start, scratch = 0, Scratch(device)
        for flags, crops in parts:
            part = slice(start, start + len(crops))
            colours = ColourTransforms(*(field[part] for field in fields))
            pixels = _load(images, index[part], scratch)
            pixels = self._augment(pixels, flags, colours, taps[part, : int(radii[crops].max()) + 1], scratch)
            _store(output, index[part], pixels, *normalise)
            start = part.stop
        return output

    def _augment(self, images, flags, transforms: "ColourTransforms", taps, scratch: "Scratch") -> torch.Tensor:
        """Crops (n, 3, H, W), 0 to 255, that are all jittered or all not, and so on: float32 in [0, 1]."""
        jitter, blur, solarize = flags
        colour = transforms.jitter if jitter else transforms.plain
        result = colour(images.flatten(2), scratch).view(images.shape)
        if blur:
            result = gaussian_blur(result, taps, scratch)
        return solarized(result, self.options.solarize_threshold, scratch) if solarize else result


class Scratch:
    """Memory that each part of a batch uses again: on a CPU, fresh temporaries are paid for in page faults."""

    def __init__(self, device: torch.device):
        self._device, self._buffers = device, {}

    def __call__(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """A float32 tensor with what the last one of this name left in it."""
        size = math.prod(shape)
        if name not in self._buffers or self._buffers[name].numel() < size:
            self._buffers[name] = torch.empty(size, device=self._device)
        return self._buffers[name][:size].view(shape)


def _groups(parameters: AugmentParameters) -> Iterator[tuple[tuple[bool, bool, bool], torch.Tensor]]:
    """Crops to which the same operations apply: (jitter, blur, solarize) and their numbers, by the width of the blur.
    Nothing has to be masked within one.
    """
    order = parameters.sigma.argsort()
    for flags in product((False, True), repeat=3):
        jitter, blur, solarize = flags
        same = (parameters.jitter == jitter) & (parameters.blur == blur) & (parameters.solarize == solarize)
        if same.any():
            yield flags, order[same[order]]


def _to_device(values: tuple[torch.Tensor, ...], device: torch.device) -> list[torch.Tensor]:
    """CPU tensors as float32 on the device, in one copy for which a GPU is not waited for. Crops' numbers stay exact
    below 2^24.
    """
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
    for place, crop in zip(index.tolist(), pixels, strict=True):
        crop.copy_(images[place])
    return pixels


def _store(output: torch.Tensor, index: torch.Tensor, part: torch.Tensor, shift, scale) -> None:
    """Puts normalised crops where they belong."""
    if output.device.type != "cpu":
        output.index_copy_(0, index, part.mul(scale).add_(shift))
        return
    for place, crop in zip(index.tolist(), part, strict=True):  # four times faster than index_copy_ on a CPU
        torch.mul(crop, scale, out=output[place]).add_(shift)


class ColourTransforms(NamedTuple):
    """Brightness, contrast, saturation and grayscale of each crop as two affine transforms, before and after hue.

    x -> matrix @ x + about_mean @ mean(x), where `about_mean` is what contrast adds; matrices are (N, 3, 3).

    Attributes:
        first, first_mean: of values 0 to 255, to [0, 1] as hue takes it.
        second, second_mean: of those.
        hue: (N,) shift in turns.
    """

    first: torch.Tensor
    first_mean: torch.Tensor
    second: torch.Tensor
    second_mean: torch.Tensor
    hue: torch.Tensor

    @classmethod
    def of(cls, parameters: AugmentParameters) -> "ColourTransforms":
        place = parameters.order.argsort(dim=1)
        before_hue = place < place[:, _HUE:]
        first, first_mean = _compose(parameters, before_hue)
        second, second_mean = _compose(parameters, ~before_hue)
        last = torch.where(parameters.grayscale[:, None, None], _luma_matrix(), torch.eye(3))
        return cls(first / 255, first_mean / 255, last @ second, last @ second_mean, parameters.hue)

    def jitter(self, pixels: torch.Tensor, scratch: Scratch) -> torch.Tensor:
        """(n, 3, P), 0 to 255 -> [0, 1]. Works in `pixels`, too."""
        other = scratch("transformed", pixels.shape)
        about = self.first_mean @ pixels.mean(dim=2, keepdim=True)
        torch.baddbmm(about, self.first, pixels, out=other).clamp_(0, 1)
        shift_hue(other, self.hue, scratch)
        about = self.second_mean @ other.mean(dim=2, keepdim=True)
        return torch.baddbmm(about, self.second, other, out=pixels).clamp_(0, 1)

    def plain(self, pixels: torch.Tensor, scratch: Scratch) -> torch.Tensor:
        """The same where only grayscale may apply."""
        return torch.bmm(self.second / 255, pixels, out=scratch("transformed", pixels.shape))


def _luma_matrix() -> torch.Tensor:
    return torch.tensor(_LUMA).expand(3, 3)


def _compose(parameters: AugmentParameters, active: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What the `active` (N, 4) ones of brightness, contrast and saturation do one after the other in each crop's
    order: the matrix (N, 3, 3) that applies to a pixel and the one that applies to the mean.
    """
    luma, one = _luma_matrix(), torch.ones_like(parameters.hue)
    active = active & parameters.jitter[:, None]
    matrix = torch.eye(3).expand(len(one), 3, 3)
    about_mean = torch.zeros_like(matrix)
    for place in range(4):
        operation = parameters.order[:, place : place + 1]
        acts = active.gather(1, operation)

        def factor(number: int, values: torch.Tensor, acting=(operation, acts)) -> torch.Tensor:
            return torch.where((acting[0][:, 0] == number) & acting[1][:, 0], values, one)[:, None, None]

        contrast = factor(_CONTRAST, parameters.contrast)
        saturation = factor(_SATURATION, parameters.saturation)
        step = (
            factor(_BRIGHTNESS, parameters.brightness)
            * contrast
            * (saturation * torch.eye(3) + (1 - saturation) * luma)
        )
        # Contrast mixes with the mean luma of the image as it is at this point.
        about_mean = step @ about_mean + (1 - contrast) * luma @ matrix
        matrix = step @ matrix
    return matrix, about_mean


def shift_hue(pixels: torch.Tensor, shift: torch.Tensor, scratch: Scratch) -> None:
    """Turns the hue of RGB (n, 3, P) in [0, 1], in place, by `shift` (n,) turns; value and saturation stay
    (torchvision's adjust_hue).

    Without a branch, because comparisons cost more than arithmetic here: with c = max - min, the hue lies
    (1 + (R + B - G - min) / c) / 6 turns away from green, towards blue where B > R. A channel whose own hue is d turns
    away (0 to 1/2) is min + c clamp(6 d - 1, 0, 1), d counted from the channel's complement.
    """
    red, green, blue = pixels.unbind(1)
    smallest, chroma, turned, spare, distance = (scratch(f"hue {number}", red.shape) for number in range(5))
    torch.minimum(torch.minimum(red, green, out=smallest), blue, out=smallest)
    torch.maximum(torch.maximum(red, green, out=chroma), blue, out=chroma).sub_(smallest)
    torch.add(red, blue, out=turned).sub_(green).sub_(smallest)
    turned.div_(torch.clamp(chroma, min=1e-12, out=spare)).add_(1).mul_(1 / 6)
    turned.copysign_(torch.sub(blue, red, out=spare)).add_(shift[:, None] + 5 / 6)
    base = smallest.sub_(chroma)
    for channel in range(3):
        torch.sub(turned, torch.round(turned, out=spare), out=distance).abs_().clamp_(1 / 6, 1 / 3)
        torch.addcmul(base, distance, chroma, value=6, out=pixels[:, channel])
        turned.sub_(1 / 3)


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

    Sums of shifted images, taken as they lie in memory: a step of 1 is one to the side, one of a padded row is one
    down, so that each sum is over one piece, and what it makes of the padding is cut off in the end. Three times as
    fast as a grouped convolution on a CPU, and nothing of it is rounded to TF32 on a GPU.
    """
    radius, (count, channels, height, width) = weights.shape[1] - 1, images.shape
    rows, row = height + 2 * radius, width + 2 * radius
    padded = scratch("padded", (count, channels, rows, row))
    flat = torch.ops.aten.reflection_pad2d.out(images, (radius,) * 4, out=padded).flatten(1)
    for name, step in (("sideways", 1), ("downwards", row)):
        length = flat.shape[1] - 2 * radius * step
        total = torch.mul(flat.narrow(1, radius * step, length), weights[:, :1], out=scratch(name, (count, length)))
        for away in range(1, radius + 1):
            for start in (radius - away, radius + away):
                total.addcmul_(flat.narrow(1, start * step, length), weights[:, away : away + 1])
        flat = total
    return flat.as_strided(images.shape, (flat.shape[1], rows * row, row, 1))
