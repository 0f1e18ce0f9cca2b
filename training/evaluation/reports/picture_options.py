# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The kinds of pictures of `visreg visualize`, and their options. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...option import SEED, check_options, option
from ..options import AT_LEAST_ONE, PIXELS, CacheOptions, FeatureOptions, SplitOptions


if TYPE_CHECKING:
    from PIL import Image

    from ...backbones import Backbone
    from ...data import Source
    from ..features import Features


@dataclass(frozen=True)
class ShownOptions(SplitOptions):
    """What is shown, of which models, and where the picture goes."""

    model: tuple[str, ...] | None = option(None, "as in `visreg evaluate`; pca, attention: several")
    trust_remote_code: bool = option(False, "run the code that a Hub repository brings")
    output: Path | None = option(None, "a .png file, or a folder for --frames")
    split: str | None = option(
        None, "split that is shown; default: test where there is one, else validation, else train"
    )  # type: ignore[assignment]

    def __post_init__(self):
        check_options(self)

    def open(self, split: str | None = None) -> "Source":
        """The source of the split, or of another one of the same data set."""
        from ..splits import TESTED, open_first

        named = split or self.split
        return open_first(str(self.dataset), [named] if named else [*TESTED, "train"], **self.columns())


@dataclass(frozen=True)
class ImagesOptions(ShownOptions):
    """Single images: files, or some of a data set."""

    images: tuple[Path, ...] | None = option(None, "image files or folders, instead of a data set")
    count: int = option(8, "images at most", AT_LEAST_ONE)
    image_size: int | None = option(None, "pixels of the shorter side; default: native", PIXELS)

    def read(self) -> "list[Image.Image]":
        if (self.images is None) == (self.dataset is None):
            raise ValueError("name --images (or --frames), or --dataset")
        if self.images is not None:
            from .drawing import read_images

            return read_images(self.images, self.count, self.max_pixels)
        return [image for image, _label, _name in self.open().examples(limit=self.count)]


@dataclass(frozen=True)
class PcaOptions(ImagesOptions):
    """Principal components of patch tokens."""

    frames: Path | None = option(None, "folder of the frames of a video: a picture each")
    each: bool = option(False, "a basis of its own for each image")


@dataclass(frozen=True)
class DataSetOptions(ShownOptions, CacheOptions):
    """Features of a split, and how they are computed."""

    def features(self, backbone: "Backbone", source: "Source", taken: FeatureOptions) -> "Features":
        from ..cache import cached_features

        return cached_features(backbone, source, taken, self.cache, self.batch_size)


@dataclass(frozen=True)
class MapOptions(DataSetOptions):
    """A map in two dimensions."""

    method: str = option("tsne", "umap needs the package umap-learn", ("tsne", "umap"))
    seed: int = option(0, "of all that is drawn", SEED)


@dataclass(frozen=True)
class ConfusionOptions(DataSetOptions):
    """Confusions of kNN."""

    train_split: str = option("train", "images that are compared with")
    k: int = option(20, "neighbors", AT_LEAST_ONE)


@dataclass(frozen=True)
class NeighborOptions(DataSetOptions):
    """Nearest images."""

    train_split: str = option("train", "images that are compared with")
    k: int = option(7, "neighbors", AT_LEAST_ONE)
    count: int = option(8, "queries", AT_LEAST_ONE)


@dataclass(frozen=True)
class Picture:
    """One kind of picture: its title, the dataclass of its options, and the blocks from the end that it takes where
    nothing is said. `drawing.py` says what draws it."""

    title: str
    options: type
    layers: int = FeatureOptions.layers

    @property
    def of_features(self) -> bool:
        return issubclass(self.options, DataSetOptions)


PICTURES = {
    "pca": Picture("patch tokens as colors, several models side by side", PcaOptions),
    "attention": Picture("what CLS attends to in the last block", ImagesOptions),
    "map": Picture("t-SNE or UMAP of a labeled set", MapOptions),
    "confusion": Picture("which class is taken for which, by kNN", ConfusionOptions, layers=1),  # as the protocol
    "neighbors": Picture("nearest images, as a contact sheet", NeighborOptions),
}
