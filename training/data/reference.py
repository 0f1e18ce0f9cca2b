# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The usual torchvision pipeline, one crop at a time in float: what tests and the benchmark compare our path to."""

import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

from .augment import IMAGENET_MEAN, IMAGENET_STD
from .crops import MultiCrop
from .decode import to_rgb


class TorchvisionReference:
    """Crops, flip, jitter, grayscale, blur, solarize, normalise by torchvision; takes the arguments of `DeviceAugment`
    too.

    Args:
        multi_crop: sizes, scales and probabilities of the crops; it cuts nothing here.
        brightness, contrast, saturation, hue, ...: as in `DeviceAugment`.
    """

    def __init__(
        self,
        multi_crop: MultiCrop,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.2,
        hue: float = 0.1,
        jitter_probability: float = 0.8,
        grayscale_probability: float = 0.2,
        blur_probability: float = 0.5,
        blur_kernel: int = 9,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
        solarize_probability: float = 0.2,
        solarize_threshold: float = 0.5,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ):
        self.multi_crop = multi_crop
        self.colour = v2.Compose(
            [
                v2.RandomApply([v2.ColorJitter(brightness, contrast, saturation, hue)], p=jitter_probability),
                v2.RandomGrayscale(p=grayscale_probability),
                v2.RandomApply([v2.GaussianBlur(blur_kernel, blur_sigma)], p=blur_probability),
                v2.RandomSolarize(solarize_threshold, p=solarize_probability),
                v2.Normalize(mean, std),
            ]
        )
        self._global = self._crop(multi_crop.global_size, multi_crop.global_scale)
        self._local = self._crop(multi_crop.local_size, multi_crop.local_scale) if multi_crop.num_local else None

    def _crop(self, size: int, scale: tuple[float, float]) -> v2.Transform:
        steps = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
        if self.multi_crop.rotation:
            steps.append(v2.RandomRotation(self.multi_crop.rotation, InterpolationMode.BILINEAR))
        steps.append(
            v2.RandomResizedCrop(size, scale, self.multi_crop.ratio, InterpolationMode.BICUBIC, antialias=True)
        )
        steps.append(v2.RandomHorizontalFlip(self.multi_crop.flip_probability))
        # Bicubic overshoots in float, where uint8 would have been clamped.
        return v2.Compose([*steps, v2.Lambda(lambda image: image.clamp(0, 1)), self.colour])

    def __call__(self, image: Image.Image) -> list[torch.Tensor]:
        """PIL image -> normalised float views (C, h, w), global first. Draws from torch's global generator."""
        image = to_rgb(image)
        views = [self._global(image) for _ in range(self.multi_crop.num_global)]
        return views + [self._local(image) for _ in range(self.multi_crop.num_local)]
