# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Multi-crop in the worker: one decoded image -> global and local views, uint8 all the way.

Shapes: a view is (C, h, w) uint8, C = 3; views come global first. Color is left to `DeviceAugment`, on the device.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from ..option import check_options
from .decode import MAX_PIXELS, OpenedImage, to_rgb
from .options import CropOptions


_TRIES = 10  # as torchvision's RandomResizedCrop
# A JPEG may be decoded smaller as long as each crop is still reduced by this factor afterwards: what the DCT's box
# filter leaves differs from the exact result by less than the test's bound.
_REDUCTION_MARGIN = 2.0
_LARGE = 1024  # pixels of a side, beyond which it is the size of views that is wrong and not their number
_MULTIPLE = 112  # what the usual patches of 7, 8, 14 and 16 pixels divide


class ViewMaker(Protocol):
    """What a worker does to an image: `MultiCrop`, or `TorchvisionReference`.

    Attributes:
        dtype: of the views.
        resolutions: (number of views, side) of each tensor of a batch.
    """

    dtype: torch.dtype
    resolutions: list[tuple[int, int]]

    def from_opened(self, opened: OpenedImage, generator: torch.Generator | None = None) -> list[torch.Tensor]:
        """An image of which only the header was read -> views (C, h, w), global first."""


@dataclass(frozen=True)
class Crop:
    """One view to be taken: a box of the image in pixels, its mirror and rotation, and the side of the result."""

    left: int
    top: int
    width: int
    height: int
    flip: bool
    angle: float
    size: int


def check_pixels(options: CropOptions) -> None:
    """Refuses views that have more pixels, all of an image together, than the largest image that is read.

    Raises:
        ValueError: it names the size or the number of views that fits.
    """
    groups = [("global", options.num_global, options.global_size), ("local", options.num_local, options.local_size)]
    pixels = [count * size**2 for _name, count, size in groups]
    if sum(pixels) <= MAX_PIXELS:
        return
    name, count, size = groups[pixels.index(max(pixels))]
    room = max(0, MAX_PIXELS - min(pixels))
    fitting, fewer = math.isqrt(room // count) // _MULTIPLE * _MULTIPLE, room // size**2
    if fitting and (size > _LARGE or not fewer):
        fits = f"{name}_size {fitting} fits"
    else:
        fits = f"num_{name} {fewer} fits" if fewer else "smaller ones fit"
    many = f"{options.num_global} global and {options.num_local} local views of an image have {sum(pixels):,} pixels"
    raise ValueError(f"{many}, more than the {MAX_PIXELS:,} of the largest image that is read: {fits}")


@dataclass(frozen=True)
class MultiCrop(CropOptions):
    """Random resized crops with horizontal flip: bicubic, antialiased, uint8.

    Fields, defaults and ranges are those of `CropOptions` (ViT-B/16 on ImageNet-1K). A flip_probability of 0 is for
    images whose left and right differ (digits); a rotation comes before the crop and leaves empty corners black
    (torchvision's RandomRotation).

    Attributes:
        ratio: range of width / height of a crop before it is resized.

    Raises:
        ValueError: for a value out of range.
    """

    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    dtype = torch.uint8

    def __post_init__(self):
        check_options(self)
        check_pixels(self)
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"ratio must be two numbers, 0 < low <= high, not {tuple(self.ratio)}")

    @property
    def sizes(self) -> list[int]:
        """The side of each view."""
        return [self.global_size] * self.num_global + [self.local_size] * self.num_local

    @property
    def resolutions(self) -> list[tuple[int, int]]:
        """(number of views, side) of each tensor of a batch: equal sizes of global and local crops share one."""
        if self.num_local == 0:
            return [(self.num_global, self.global_size)]
        if self.local_size == self.global_size:
            return [(self.num_global + self.num_local, self.global_size)]
        return [(self.num_global, self.global_size), (self.num_local, self.local_size)]

    def __call__(self, image: Image.Image, generator: torch.Generator | None = None) -> list[torch.Tensor]:
        """PIL image of any mode -> views, uint8 (C, h, w), global first."""
        views = self.cut(to_rgb(image), self.plan(*image.size, generator), image.size)
        return [view.contiguous() for view in views]

    def from_opened(self, opened: OpenedImage, generator: torch.Generator | None = None) -> list[torch.Tensor]:
        """An image of which only the header was read -> views (C, h, w), strided. Decodes no larger than the crops
        need.

        Raises:
            BadImage: if the pixels cannot be decoded.
        """
        crops = self.plan(*opened.size, generator)
        return self.cut(opened.load(self.reduction(crops)), crops, opened.size)

    def plan(self, width: int, height: int, generator: torch.Generator | None = None) -> list[Crop]:
        """Draws the crops of an image of `width` x `height` pixels: torchvision's RandomResizedCrop, all views at
        once.
        """
        sizes = self.sizes
        # columns: share of the area and ratio for each try; then left, top, flip, angle
        draws = torch.rand((len(sizes), 2 * _TRIES + 4), generator=generator, dtype=torch.float64).tolist()
        crops = []
        for view, draw in enumerate(draws):
            scale = self.global_scale if view < self.num_global else self.local_scale
            box_width, box_height, centered = self._box(width, height, scale, draw)
            left_draw, top_draw, flip_draw, angle_draw = draw[-4:]
            left = (width - box_width) // 2 if centered else int(left_draw * (width - box_width + 1))
            top = (height - box_height) // 2 if centered else int(top_draw * (height - box_height + 1))
            angle = (2 * angle_draw - 1) * self.rotation
            flip = flip_draw < self.flip_probability
            crops.append(Crop(left, top, box_width, box_height, flip, angle, sizes[view]))
        return crops

    def _box(self, width: int, height: int, scale: tuple[float, float], draw: list[float]) -> tuple[int, int, bool]:
        """Width and height of a crop, and whether it is the central one taken when no try fits the image."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for attempt in range(_TRIES):
            area = width * height * (scale[0] + draw[2 * attempt] * (scale[1] - scale[0]))
            ratio = math.exp(low + draw[2 * attempt + 1] * (high - low))
            box_width, box_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < box_width <= width and 0 < box_height <= height:
                return box_width, box_height, False
        if width / height < self.ratio[0]:
            return width, min(height, max(1, round(width / self.ratio[0]))), True
        if width / height > self.ratio[1]:
            return min(width, max(1, round(height * self.ratio[1]))), height, True
        return width, height, True

    def reduction(self, crops: list[Crop]) -> int:
        """The largest of 1, 2, 4, 8 by which the image may be decoded smaller without touching any crop."""
        spare = min(min(crop.width, crop.height) / crop.size for crop in crops) / _REDUCTION_MARGIN
        return next((factor for factor in (8, 4, 2) if factor <= spare), 1) if self.rotation == 0 else 1

    def cut(self, image: Image.Image, crops: list[Crop], size: tuple[int, int]) -> list[torch.Tensor]:
        """Takes the crops. `size` is the (width, height) that they were planned for: `image` may have been decoded
        smaller.
        """
        scale_x, scale_y = image.width / size[0], image.height / size[1]
        pixels = _pixels(image)
        views = []
        for crop in crops:
            source = pixels if crop.angle == 0 else _pixels(image.rotate(crop.angle, Image.Resampling.BICUBIC))
            left, right = _span(crop.left, crop.width, scale_x, image.width)
            top, bottom = _span(crop.top, crop.height, scale_y, image.height)
            view = source[:, top:bottom, left:right]
            view = interpolate(view[None], size=(crop.size, crop.size), mode="bicubic", antialias=True)[0]
            views.append(view.flip(-1) if crop.flip else view)
        return views


def _pixels(image: Image.Image) -> torch.Tensor:
    """(C, H, W) with the channels last in memory, for which torch has vectorized uint8 resampling."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def _span(start: int, length: int, scale: float, limit: int) -> tuple[int, int]:
    """A span of the full image, in pixels of one decoded smaller."""
    if scale == 1:
        return start, start + length
    first = min(round(start * scale), limit - 1)
    return first, min(max(first + 1, round((start + length) * scale)), limit)
