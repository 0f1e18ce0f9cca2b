# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The embedded data set: scikit-learn's 1,797 handwritten digits as PNG files in memory, so that nothing has to be
downloaded.
"""

import io

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage

from .opened import NoSuchSplit, OpenedSplit


SIDE = 16  # pixels: 8 x 8 upscaled once, so that patches of 2 leave 8 x 8 of them
_TEST_SHARE = 0.2
_SPLIT_SEED = 0


def open_digits(split: str) -> OpenedSplit:
    """The split `train` or `test` of the embedded digits.

    Raises:
        NoSuchSplit: for another split.
    """
    return OpenedSplit(load_digits_dataset(split), "digits")


def load_digits_dataset(split: str) -> Dataset:
    """The split `train` (1,437 digits) or `test` (360), stratified with a fixed seed, as RGB PNG bytes of 16 x 16.

    Raises:
        NoSuchSplit: for another split.
    """
    if split not in ("train", "test"):
        raise NoSuchSplit(f"The digits have the splits train and test, not {split!r}.")
    from sklearn.datasets import load_digits  # here: half a second that only the digits should cost
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    parts = train_test_split(
        np.arange(len(digits.target)), test_size=_TEST_SHARE, stratify=digits.target, random_state=_SPLIT_SEED
    )
    rows = np.sort(parts[0] if split == "train" else parts[1])
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=[str(n) for n in range(10)])})
    images = [{"bytes": _png(digits.images[row]), "path": f"digit_{row:04d}.png"} for row in rows]
    return Dataset.from_dict({"image": images, "label": digits.target[rows].tolist()}, features=features)


def _png(pixels: np.ndarray) -> bytes:
    """(8, 8) values 0 to 16 -> PNG of 16 x 16, RGB."""
    image = PILImage.fromarray(np.round(pixels * (255 / 16)).astype(np.uint8))
    buffer = io.BytesIO()
    image.resize((SIDE, SIDE), PILImage.Resampling.BICUBIC).convert("RGB").save(buffer, format="png")
    return buffer.getvalue()
