# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What the colour part of the augmentation draws from: shared by `DeviceAugment` and `TorchvisionReference`."""

from dataclasses import dataclass


IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class ColourOptions:
    """Strengths and probabilities; the defaults are the paper's (method, section 4).

    Attributes:
        brightness, contrast, saturation: factors are uniform in [max(0, 1 - x), 1 + x].
        hue: shifts are uniform in [-hue, hue] turns.
        jitter_probability: of the four together, in random order.
        grayscale_probability: of grayscale.
        blur_probability: of a Gaussian blur.
        blur_kernel: its side in pixels, odd.
        blur_sigma: range of its standard deviation in pixels.
        solarize_probability: of inverting what is brighter than `solarize_threshold`.
        solarize_threshold: in [0, 1].
        mean, std: of the normalisation, a channel.

    Raises:
        ValueError: for a value out of range.
    """

    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    jitter_probability: float = 0.8
    grayscale_probability: float = 0.2
    blur_probability: float = 0.5
    blur_kernel: int = 9
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize_probability: float = 0.2
    solarize_threshold: float = 0.5
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __post_init__(self):
        chances = (
            self.jitter_probability,
            self.grayscale_probability,
            self.blur_probability,
            self.solarize_probability,
            self.solarize_threshold,
        )
        if not all(0 <= value <= 1 for value in chances):
            raise ValueError(f"probabilities and solarize_threshold must be in [0, 1], got {chances}")
        if min(self.brightness, self.contrast, self.saturation) < 0 or not 0 <= self.hue <= 0.5:
            raise ValueError("brightness, contrast and saturation must not be negative, and hue must be in [0, 0.5]")
        if self.blur_kernel < 1 or self.blur_kernel % 2 == 0 or not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(
                f"blur_kernel must be odd and blur_sigma 0 < low <= high, got {self.blur_kernel} and {self.blur_sigma}"
            )
        if min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {self.std}")
