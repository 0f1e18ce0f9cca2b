# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The usual torchvision pipeline, one crop at a time in float (`augment_backend: torchvision`): what tests and the
benchmark compare our path to.

torchvision is imported by whoever asks for it: it takes seconds, and 150 MB of each worker.
"""

from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

from .color import color_options
from .crops import MultiCrop
from .decode import OpenedImage, to_rgb


class TorchvisionReference:
    """Crops, flip, jitter, grayscale, blur, solarize, normalize by torchvision, in the place of `MultiCrop` and
    `DeviceAugment`.

    Args:
        multi_crop: sizes, scales and probabilities of the crops; it cuts nothing here.
        **options: fields of `ColorOptions`.
    """

    dtype = torch.float32

    def __init__(self, multi_crop: MultiCrop, **options: Any):
        self.multi_crop, self.options = multi_crop, color_options(**options)
        from torchvision.transforms import v2

        color = self.options
        jitter = v2.ColorJitter(color.brightness, color.contrast, color.saturation, color.hue)
        self.color = v2.Compose(
            [
                v2.RandomApply([jitter], p=color.jitter_probability),
                v2.RandomGrayscale(p=color.grayscale_probability),
                v2.RandomApply([v2.GaussianBlur(color.blur_kernel, color.blur_sigma)], p=color.blur_probability),
                v2.RandomSolarize(color.solarize_threshold, p=color.solarize_probability),
                v2.Normalize(color.mean, color.std),
            ]
        )
        self._global = self._crop(multi_crop.global_size, multi_crop.global_scale)
        self._local = self._crop(multi_crop.local_size, multi_crop.local_scale) if multi_crop.num_local else None

    @property
    def resolutions(self) -> list[tuple[int, int]]:
        """As `MultiCrop.resolutions`."""
        return self.multi_crop.resolutions

    def _crop(self, size: int, scale: tuple[float, float]) -> Callable:
        from torchvision.transforms import InterpolationMode, v2

        steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        if self.multi_crop.rotation:
            steps.append(v2.RandomRotation(self.multi_crop.rotation, InterpolationMode.BILINEAR))
        steps.append(
            v2.RandomResizedCrop(size, scale, self.multi_crop.ratio, InterpolationMode.BICUBIC, antialias=True)
        )
        steps.append(v2.RandomHorizontalFlip(self.multi_crop.flip_probability))
        # Bicubic overshoots in float, where uint8 would have been clamped.
        return v2.Compose([*steps, v2.Lambda(_clamped), self.color])

    def __call__(self, image: Image.Image) -> list[torch.Tensor]:
        """PIL image -> normalized float views (C, h, w), global first. Draws from torch's global generator."""
        image = to_rgb(image)
        views = [self._global(image) for _ in range(self.multi_crop.num_global)]
        return views + [self._local(image) for _ in range(self.multi_crop.num_local)]

    def from_opened(self, opened: OpenedImage, generator: torch.Generator) -> list[torch.Tensor]:
        """As `MultiCrop.from_opened`, a function of the generator: torchvision knows the global one only.

        Raises:
            BadImage: if the pixels cannot be decoded.
        """
        image = opened.load()
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator.get_state())
            return self(image)


def _clamped(image: torch.Tensor) -> torch.Tensor:
    """A function with a name: a worker that is spawned gets the pipeline pickled."""
    return image.clamp(0, 1)
