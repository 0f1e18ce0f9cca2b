# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Images that the data tests share, made from numbers: nothing is downloaded."""

import io

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from datasets import Image as ImageFeature
from PIL import Image


def make_photo(width: int = 500, height: int = 375, seed: int = 0) -> np.ndarray:
    """Something like a photo: smooth colors, edges, texture. (height, width, 3) uint8."""
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


def _write_image_dataset(
    path, sizes: list[int], seed: int = 0, side: tuple[int, int] = (40, 30), names=("cat", "dog")
):
    """Parquet files `train-0000i-of-0000n.parquet` in the folder `path`, `sizes` images each, in row groups of eight.
    Images are numbered through: number n is named `n.jpg` and has class n mod 2.
    """
    path.mkdir(parents=True, exist_ok=True)
    features = Features({"image": ImageFeature(decode=False), "label": ClassLabel(names=list(names))})
    first = 0
    for index, size in enumerate(sizes):
        numbers = range(first, first + size)
        images = [{"bytes": encode(make_photo(*side, seed + n)), "path": f"{n}.jpg"} for n in numbers]
        dataset = Dataset.from_dict({"image": images, "label": [n % 2 for n in numbers]}, features=features)
        dataset.to_parquet(path / f"train-{index:05d}-of-{len(sizes):05d}.parquet", batch_size=8)
        first += size
    return path


@pytest.fixture(scope="session")
def write_image_dataset():
    """The function `_write_image_dataset(path, sizes, seed, side, names)`."""
    return _write_image_dataset


@pytest.fixture(scope="session")
def encode_image():
    """The function `encode(pixels, form, **options)`."""
    return encode


@pytest.fixture(scope="session")
def five_shards(tmp_path_factory):
    """5 parquet shards of unequal size, 120 images."""
    return _write_image_dataset(tmp_path_factory.mktemp("five") / "data", [11, 30, 17, 40, 22])


@pytest.fixture(autouse=True, scope="session")
def _quiet_cores():
    """One thread: small tensors, and other processes on the same cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
