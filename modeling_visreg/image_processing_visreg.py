# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Images into what the model takes, as `visreg pretrain` and `visreg features` do it.

    processor = AutoImageProcessor.from_pretrained("org/name", trust_remote_code=True)
    inputs = processor("photo.png", return_tensors="pt")        # pixel_values (B, C, H, W)

Paths, URLs, PIL images, arrays and tensors; 16-bit, float, EXIF rotation, palettes, alpha, CMYK: decoding_visreg.py.
The pipelines hand the processor what they were given: those of transformers turn it into 8-bit RGB before.
"""

import base64
import os
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import image_utils
from transformers.image_processing_backends import PilBackend
from transformers.image_processing_base import BatchFeature
from transformers.image_utils import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    ChannelDimension,
    PILImageResampling,
    infer_channel_dimension_format,
)
from transformers.pipelines.base import Pipeline
from transformers.pipelines.image_classification import ImageClassificationPipeline
from transformers.pipelines.image_feature_extraction import ImageFeatureExtractionPipeline

from .decoding_visreg import (
    MAX_PIXELS,
    open_lazily,
    readable_formats,
    reduction_to,
    resized_crop,
    upright,
    values_to_8_bit,
)


_MODES = (1, 3, 4)  # channels of the arrays that PIL has images of: gray, RGB, RGBA


class VISRegViTImageProcessor(PilBackend):
    r"""Image processor of the VISReg ViT: the shortest edge resized with antialiased bicubic resampling, the center
    cropped, values from 0 to 1 normalized with the ImageNet statistics (arXiv 2606.02572, evaluation).

    Takes what `BitImageProcessor` takes, with the same arguments; defaults are those of a native size of 224 pixels.
    Arrays and tensors: uint8, uint16, other integers up to 255 or 65535, floats up to 1, 255 or 65535; gray, gray with
    alpha, RGB or RGBA where `do_convert_rgb` holds, else any number of channels.
    """

    resample = PILImageResampling.BICUBIC
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"shortest_edge": 256}  # noqa: RUF012 - transformers copies these
    default_to_square = False
    crop_size = {"height": 224, "width": 224}  # noqa: RUF012
    do_resize = True
    do_center_crop = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True

    reads_files = True  # for the pipelines: any image is fine as given

    def fetch_images(self, image_url_or_urls: Any) -> Any:
        """Opens paths and URLs, of whatever nesting; images stay as they are."""
        if isinstance(image_url_or_urls, list | tuple):
            return [self.fetch_images(image) for image in image_url_or_urls]
        if isinstance(image_url_or_urls, str | os.PathLike):
            return read_image(image_url_or_urls)
        if isinstance(image_url_or_urls, np.ndarray | torch.Tensor) and image_url_or_urls.ndim == 2:
            return image_url_or_urls[None]
        return super().fetch_images(image_url_or_urls)

    def process_image(
        self,
        image: Any,
        do_convert_rgb: bool | None = None,
        input_data_format: str | ChannelDimension | None = None,
        do_rescale: bool | None = True,
        image_mean: Any = None,
        **kwargs: Any,
    ) -> Any:
        """A PIL image, array or tensor -> a PIL image of 8 bits, or an array (C, H, W) where PIL has no such image."""
        gray = not do_convert_rgb and isinstance(image_mean, list | tuple) and len(image_mean) == 1
        if not isinstance(image, Image.Image):
            values = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
            values = channels_first(values, input_data_format)
            if values.dtype.kind == "f" and not do_rescale:
                return values.astype(np.float32)  # as the model takes it
            values = values_of_any_type_to_8_bit(values)
            if len(values) not in _MODES:
                return values
            pixels = np.moveaxis(values, 0, -1) if len(values) > 1 else values[0]
            image = Image.fromarray(np.ascontiguousarray(pixels))
        image = upright(image, rgb=bool(do_convert_rgb) or gray)
        return image.convert("L") if gray else image

    def _preprocess(  # type: ignore[override]
        self,
        images: list,
        do_resize: bool,
        size: Any,
        resample: Any,
        do_center_crop: bool,
        crop_size: Any,
        **kwargs: Any,
    ) -> BatchFeature:
        arrays = []
        for image in images:
            if do_resize and do_center_crop and size.shortest_edge and not size.longest_edge and is_pil(image):
                crop = (crop_size.height, crop_size.width)
                arrays.append(array_of(resized_crop(image, size.shortest_edge, crop, resample)))
                continue
            array = array_of(image)
            array = self.resize(array, size=size, resample=resample) if do_resize else array
            arrays.append(self.center_crop(array, crop_size) if do_center_crop else array)
        # What is left is rescaling, normalizing and padding.
        return super()._preprocess(
            arrays, do_resize=False, size=size, resample=resample, do_center_crop=False, crop_size=crop_size, **kwargs
        )


def read_image(source: str | os.PathLike, timeout: float | None = None) -> Image.Image:
    """Opens a path, a URL, or a file in base64 (a data URI or the text alone), as transformers' `load_image` does.

    A JPEG of more than `MAX_PIXELS` comes at a half, a quarter or an eighth of its sides.

    Args:
        timeout: of a URL, in seconds; None waits without end.

    Raises:
        ValueError: it is none of these, or an image of another format than a JPEG has more pixels.
        OSError: Pillow cannot read it.
    """
    content = read_bytes(os.fspath(source), timeout)
    image = open_lazily(content, readable_formats())
    reduction = reduction_to(image.size, image.format, MAX_PIXELS, "progressive" in image.info)
    if reduction is None:
        raise ValueError(
            f"an image of {image.width} x {image.height} pixels; at most {MAX_PIXELS:,} are decoded "
            "(VISREG_MAX_PIXELS allows more)."
        )
    if reduction > 1:
        image.draft("RGB", (image.width // reduction, image.height // reduction))
    return image


def read_bytes(source: str, timeout: float | None = None) -> bytes:
    """The content of what `read_image` opens."""
    if source.startswith(("http://", "https://")):
        # By way of transformers: which client huggingface_hub brings has changed before (requests, httpx, httpx2).
        return image_utils.httpx.get(source, timeout=timeout, follow_redirects=True).content
    if os.path.isfile(source):
        with open(source, "rb") as file:
            return file.read()
    text = source.partition(",")[2] if source.startswith("data:image/") else source
    try:
        return base64.b64decode(text, validate=not source.startswith("data:"))
    except ValueError as error:
        raise ValueError(f"there is no image {source[:200]!r}: a path, a URL or a file in base64.") from error


def is_pil(image: Any) -> bool:
    return isinstance(image, Image.Image)


def array_of(image: Any) -> np.ndarray:
    """(C, H, W) of a PIL image; of an array itself."""
    if not is_pil(image):
        return image
    values = np.asarray(image.convert("L") if image.mode == "1" else image)
    return values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)


def channels_first(values: np.ndarray, layout: str | ChannelDimension | None) -> np.ndarray:
    """(H, W), (H, W, C) or (C, H, W) -> (C, H, W)."""
    if values.ndim == 2:
        return values[None]
    layout = layout or infer_channel_dimension_format(values, num_channels=(1, 3, 4))
    return np.moveaxis(values, -1, 0) if layout == ChannelDimension.LAST else values


def values_of_any_type_to_8_bit(values: np.ndarray) -> np.ndarray:
    """As `values_to_8_bit`; integers that are no 16-bit values and no larger than 255 are bytes."""
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * 255
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind in "iu" and values.dtype != np.uint16 and values.max(initial=0) <= 255:
        return np.clip(values, 0, 255).astype(np.uint8)
    return values_to_8_bit(values)


class AsGiven(Pipeline):
    """A pipeline that hands images to the processor as they were given."""

    _load_video_processor: Any = False  # else our file is taken for one's, and its code asked about

    def preprocess(self, input_: Any, **settings: Any) -> Any:
        """What the model takes, for one image; `settings` are the processor's, and `timeout` for a URL."""
        processor: Any = self.image_processor
        if not getattr(processor, "reads_files", False):  # of another model, or of an older checkpoint
            transformers_own: Any = super()
            return transformers_own.preprocess(input_, **settings)
        timeout = settings.pop("timeout", None)
        image = read_image(input_, timeout) if isinstance(input_, str) else input_
        return processor(image, return_tensors="pt", **settings).to(self.dtype)


class VISRegViTFeatureExtractionPipeline(AsGiven, ImageFeatureExtractionPipeline):  # type: ignore[misc]
    """`pipeline("image-feature-extraction")`, with any image that the processor reads."""


class VISRegViTImageClassificationPipeline(AsGiven, ImageClassificationPipeline):  # type: ignore[misc]
    """`pipeline("image-classification")`, with any image that the processor reads."""


PIPELINES = {
    "image-feature-extraction": VISRegViTFeatureExtractionPipeline,
    "image-classification": VISRegViTImageClassificationPipeline,
}

VISRegViTImageProcessor.register_for_auto_class()

__all__ = [
    "PIPELINES",
    "VISRegViTFeatureExtractionPipeline",
    "VISRegViTImageClassificationPipeline",
    "VISRegViTImageProcessor",
]
