# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Jitter and grayscale as two affine transforms per crop, with the hue between them.

Legend: N crops of a batch, n of a part of it, P = H x W pixels.
"""

from typing import NamedTuple

import torch

from .parameters import AugmentParameters
from .scratch import Scratch


# ITU-R 601-2 luma, as torchvision takes it.
_LUMA = (0.2989, 0.587, 0.114)
_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)


class ColorTransforms(NamedTuple):
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
    def of(cls, parameters: AugmentParameters) -> "ColorTransforms":
        """The transforms that the parameters of N crops compose to, on the CPU."""
        matrices, about_means = _compose(parameters)
        (first, second), (first_mean, second_mean) = matrices.chunk(2), about_means.chunk(2)
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


def _compose(parameters: AugmentParameters) -> tuple[torch.Tensor, torch.Tensor]:
    """What brightness, contrast and saturation do one after the other in each crop's order: first those before hue of
    all crops, then those after it. The matrices (2N, 3, 3) that apply to a pixel, and those that apply to the mean.
    """
    hue = (parameters.order == _HUE).int().argmax(dim=1, keepdim=True)
    place = torch.arange(3)  # among the three
    operations = parameters.order.gather(1, place + (place >= hue)).T
    before = (place < hue).T
    acts = torch.stack([before, ~before], dim=1) & parameters.jitter

    def factors(operation: int, values: torch.Tensor) -> torch.Tensor:
        """(3, 2N): of the places where an operation acts; 1 elsewhere, which changes nothing."""
        return torch.where((operations == operation)[:, None] & acts, values, 1.0).flatten(1)

    contrast, saturation = factors(_CONTRAST, parameters.contrast), factors(_SATURATION, parameters.saturation)
    luma, unit = _luma_matrix()[..., None, None], torch.eye(3)[..., None, None]
    scale = factors(_BRIGHTNESS, parameters.brightness) * contrast
    steps = (scale * (saturation * unit + (1 - saturation) * luma)).permute(2, 3, 0, 1)
    # Contrast mixes with the mean luma of the image as it is at its place; the same for all three channels.
    about = ((1 - contrast) * luma[:1]).permute(2, 3, 0, 1)
    matrix, about_mean = steps[0], about[0].expand(-1, 3, -1)
    for step, mixed in zip(steps[1:], about[1:], strict=True):
        about_mean = step @ about_mean + mixed @ matrix
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
