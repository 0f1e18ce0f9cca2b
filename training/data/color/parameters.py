# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What is done to each crop: drawn from the options by a CPU generator, so that every device gets the same views.

Legend: N crops of a batch.
"""

from typing import Any, NamedTuple

import torch

from ...option import check_options
from ..options import ColorOptions


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


def color_options(**options: Any) -> ColorOptions:
    """`ColorOptions` with its values checked.

    Raises:
        ValueError: for a value out of range.
        TypeError: for an unknown option.
    """
    checked = ColorOptions(**options)
    check_options(checked)
    if checked.blur_kernel < 1 or checked.blur_kernel % 2 == 0:
        raise ValueError(f"blur_kernel must be odd and above 0, not {checked.blur_kernel}")
    if not 0 < checked.blur_sigma[0] <= checked.blur_sigma[1]:
        raise ValueError(f"blur_sigma must be two numbers, 0 < low <= high, not {checked.blur_sigma}")
    if not 0 <= checked.solarize_threshold <= 1:
        raise ValueError(f"solarize_threshold must lie in [0, 1], not {checked.solarize_threshold}")
    if min(checked.std) <= 0:
        raise ValueError(f"std must be above 0, not {checked.std}")
    return checked


def sample_parameters(options: ColorOptions, count: int, generator: torch.Generator | None) -> AugmentParameters:
    """Draws the parameters of `count` crops from a CPU generator; None is torch's global one.

    Factors of brightness, contrast and saturation are uniform in [max(0, 1 - x), 1 + x], hue in [-hue, hue] turns.
    """
    draws = torch.rand((9, count), generator=generator)
    order = torch.rand((count, 4), generator=generator).argsort(dim=1)
    low, high = options.blur_sigma
    return AugmentParameters(
        jitter=draws[0] < options.jitter_probability,
        order=order,
        brightness=_factor(draws[1], options.brightness),
        contrast=_factor(draws[2], options.contrast),
        saturation=_factor(draws[3], options.saturation),
        hue=(2 * draws[4] - 1) * options.hue,
        grayscale=draws[5] < options.grayscale_probability,
        blur=draws[6] < options.blur_probability,
        sigma=low + draws[7] * (high - low),
        solarize=draws[8] < options.solarize_probability,
    )


def _factor(draw: torch.Tensor, strength: float) -> torch.Tensor:
    smallest = max(0.0, 1 - strength)
    return smallest + draw * (1 + strength - smallest)
