# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Subsets of a source: a share, n images per class, an exponential long tail, a list of files. Seeded, and recorded
with the run.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..option import check_options
from ..seeding import numpy_generator, random_uint64
from .options import SubsetOptions


# The Hub's ImageNet-1K calls n01440764_10026.JPEG n01440764_10026_n01440764.JPEG; file lists use the short name.
_IMAGENET_NAME = re.compile(r"^(n\d{8}_\d+)_n\d{8}$")


@dataclass(frozen=True)
class Subset(SubsetOptions):
    """Which images of a source to use. Several restrictions apply in this order: file_list,
    images_per_class or imbalance_factor, fraction.

    With `imbalance_factor` the first class keeps all of its images, the last 1 / factor as many, exponentially between
    (the CIFAR-LT protocol); counts start from the largest class. `file_list` names one image per line (ImageNet-LT:
    `train/n01440764/n01440764_190.JPEG 0`): the file names, without folders and extension, are what is compared.

    Attributes:
        seed: of the drawing.

    Raises:
        ValueError: for a value out of range.
    """

    seed: int = 0

    def __post_init__(self):
        check_options(self)
        if self.imbalance_factor is not None and self.images_per_class is not None:
            raise ValueError("subset: give images_per_class or imbalance_factor, not both.")
        if self.file_list is not None and not Path(self.file_list).is_file():
            raise ValueError(f"subset: there is no file list {self.file_list}.")

    def __bool__(self) -> bool:
        return any(
            v is not None for v in (self.fraction, self.images_per_class, self.imbalance_factor, self.file_list)
        )

    @property
    def needs_labels(self) -> bool:
        return self.images_per_class is not None or self.imbalance_factor is not None

    def description(self) -> dict:
        """What was asked for, for the run's record."""
        return {key: value for key, value in asdict(self).items() if value is not None}

    def content(self) -> dict:
        """The same with what stands in the file list in the place of its path."""
        names = self.listed_names()
        return self.description() | ({} if names is None else {"file_list": sorted(names)})

    def listed_names(self) -> frozenset[str] | None:
        """Names in the file list, as `file_key` writes them; None without one."""
        if self.file_list is None:
            return None
        lines = Path(self.file_list).read_text(encoding="utf-8").splitlines()
        return frozenset(file_key(_without_label(line)) for line in lines if line.strip())

    def select(self, count: int, labels: np.ndarray | None, paths: list[str | None] | None) -> np.ndarray:
        """Rows to keep of a map-style source, ascending.

        Args:
            count: images of the source.
            labels: (count,) integer classes; needed for images_per_class and imbalance_factor.
            paths: file name of each image; needed for file_list.

        Raises:
            ValueError: if nothing is left, or what is needed is missing.
        """
        rows = np.arange(count)
        if self.file_list is not None:
            names = self.listed_names()
            rows = rows[[path is not None and file_key(path) in names for path in paths]]
        if self.needs_labels:
            rows = self._select_by_class(rows, labels)
        if self.fraction is not None:
            keep = round(self.fraction * len(rows))
            rows = np.sort(numpy_generator("subset", self.seed, 0).permutation(rows)[:keep])
        if len(rows) == 0:
            raise ValueError(f"subset: nothing is left of {count} images with {self.description()}.")
        return rows

    def _select_by_class(self, rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
        labels = labels[rows]
        classes = np.unique(labels[labels >= 0])
        largest = max((int((labels == c).sum()) for c in classes), default=0)
        selected = []
        for position, c in enumerate(classes):
            limit = self.images_per_class
            if self.imbalance_factor is not None:
                limit = max(1, int(largest * self.imbalance_factor ** (-position / max(1, len(classes) - 1))))
            of_class = rows[labels == c]
            selected.append(numpy_generator("subset", self.seed, 1, int(c)).permutation(of_class)[:limit])
        return np.sort(np.concatenate(selected)) if selected else rows[:0]

    def keeps(self, image: tuple[int, ...]) -> bool:
        """Whether `fraction` keeps this image of a stream: decided image by image, so the share is met on average."""
        if self.fraction is None:
            return True
        return random_uint64("subset_image", self.seed, *image) < self.fraction * 2.0**64


def file_key(path: str) -> str:
    """What of a path is compared with a file list: its name without folders and extension."""
    stem = PurePosixPath(path.replace("\\", "/")).stem
    match = _IMAGENET_NAME.match(stem)
    return match.group(1) if match else stem


def _without_label(line: str) -> str:
    """`train/n01440764/n01440764_190.JPEG 0` -> its path. File names may hold blanks, so only a trailing number is
    cut.
    """
    return re.sub(r"\s+-?\d+$", "", line.strip())
