# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The one test transform of every protocol and model: shortest edge to 256/224 of the size, center crop (method, 5).

B images, C channels; uint8 on the CPU, normalized floats on the device.
"""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from modeling_visreg.checkpoint import RESIZE_RATIO
from modeling_visreg.decoding_visreg import resized_crop
from modeling_visreg.loading import host_memory

from ..backbones import Backbone
from ..run_folder import Json


_WAITING = 1 << 30  # bytes of images that are decoded ahead of a model
_BYTES = 15  # of a pixel: three channels, as bytes and as floats


@dataclass(frozen=True)
class EvaluationTransform:
    """Bicubic (antialiased) resize, center crop, then normalization with the model's own statistics.

    Attributes:
        size: (height, width) of the crop in pixels.
        mean, std: one value a channel, for values from 0 to 1.
    """

    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, image: Image.Image) -> torch.Tensor:
        """RGB image -> uint8 (C, H, W)."""
        return to_tensor(resized_crop(image, round(max(self.size) * RESIZE_RATIO), self.size))

    def normalize(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 (B, C, H, W) -> floats on the same device."""
        return normalize(pixels, self.mean, self.std)

    @property
    def ahead(self) -> int:
        """Images that may wait for the model: 512, or as many as 1 GiB holds."""
        return max(1, min(512, _WAITING // (3 * self.size[0] * self.size[1])))

    def description(self) -> Json:
        return {"size": list(self.size), "resize_ratio": RESIZE_RATIO, "mean": list(self.mean), "std": list(self.std)}


def transform_for(backbone: Backbone, image_size: int | Sequence[int] | None = None) -> EvaluationTransform:
    """The transform of a model at its native size, or at `image_size`: pixels of a side, or (height, width).

    Raises:
        ValueError: the model's patch does not divide a side.
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size or backbone.native_size
    height, width = sides
    patch = backbone.patch_size
    if patch and (height % patch or width % patch):
        below, wide_below = height // patch * patch, width // patch * patch
        if height == width:
            given, near = str(height), [str(side) for side in (below, below + patch) if side]
        else:
            near = [f"{max(patch, below)} {max(patch, wide_below)}"]
            near.append(f"{-(-height // patch) * patch} {-(-width // patch) * patch}")
            given = f"{height} x {width}"
        choice = " or ".join(dict.fromkeys(near))
        raise ValueError(f"image_size: patches of {patch} pixels do not divide {given}; {choice} would do")
    return EvaluationTransform((height, width), backbone.mean, backbone.std)


def check_room(backbone: Backbone, transform: EvaluationTransform, batch_size: int, images: int | None) -> None:
    """Refuses images so large that a batch of them cannot fit into the memory there is.

    A lower bound: the pixels, as bytes and as floats. What a model needs beyond it is not estimated.

    Args:
        backbone: on its device.
        images: that there are, at most; None where nobody knows.

    Raises:
        ValueError: it names the batch size that fits, or the size of an image.
    """
    device, patch = backbone.device, backbone.patch_size or 1
    on_gpu = device.type == "cuda"
    room = torch.cuda.get_device_properties(device).total_memory if on_gpu else host_memory()
    height, width = transform.size
    count, each = min(batch_size, images or batch_size), _BYTES * height * width
    if room is None or count * each <= room:
        return
    need = f"{count} images of {height} x {width} pixels need {count * each / 2**30:,.1f} GiB at the least"
    side = math.isqrt(room // _BYTES) // patch * patch
    fits = f"--batch_size {room // each}" if each <= room else f"--image_size {side} with --batch_size 1"
    raise ValueError(f"{need}, and there are {room / 2**30:,.1f}; {fits} fits")


def to_tensor(image: Image.Image) -> torch.Tensor:
    """RGB image -> uint8 (C, H, W)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def normalize(pixels: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> torch.Tensor:
    """uint8 (B, C, H, W) -> (values / 255 - mean) / std."""
    shape = (1, -1, 1, 1)
    mean_tensor = torch.tensor(mean, device=pixels.device).view(shape)
    return (pixels.float() / 255 - mean_tensor) / torch.tensor(std, device=pixels.device).view(shape)


def threaded(function: Callable, items: Iterable, workers: int | None = None, ahead: int = 512) -> Iterator:
    """`map` in threads, in order, never more than `ahead` results waiting. Pillow and NumPy release the lock.

    Args:
        workers: threads; None for one a CPU, 16 at most.
    """
    workers = min(16, os.cpu_count() or 1) if workers is None else workers
    with ThreadPoolExecutor(max(1, workers)) as pool:
        waiting: deque = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
