# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Images that the data tests share, made from numbers: nothing is downloaded."""

import io

import numpy as np
import pytest
from PIL import Image


def make_photo(width: int = 500, height: int = 375, seed: int = 0) -> np.ndarray:
    """Something like a photo: smooth colours, edges, texture. (height, width, 3) uint8."""
    generator = np.random.default_rng(seed)
    small = generator.uniform(0, 255, (6, 8, 3)).astype(np.uint8)
    base = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)).astype(np.float64)
    y, x = np.mgrid[0:height, 0:width]
    for _ in range(6):
        cx, cy, r = generator.uniform(0, width), generator.uniform(0, height), generator.uniform(0.05, 0.2) * width
        base[(x - cx) ** 2 + (y - cy) ** 2 < r**2] *= generator.uniform(0.3, 1.4, 3)
    base += generator.normal(0, 6, base.shape)
    return np.clip(base, 0, 255).astype(np.uint8)


def encode(pixels: np.ndarray, form: str = "jpeg", **options) -> bytes:
    """The pixels as an image file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format=form, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def photo() -> np.ndarray:
    return make_photo()
