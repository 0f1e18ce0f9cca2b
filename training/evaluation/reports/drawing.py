# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The pictures of `visreg visualize`: what each is of, its options, and how images come to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ...backbones import Backbone, open_backbone
from ...data import BadImage, Source
from ...data.decode import has_image_suffix, open_image
from ...distributed import process_state
from ...option import check_options, option
from ..cache import CacheOptions, cached_features
from ..features import AT_LEAST_ONE, FeatureOptions, Features, image_numbers
from ..protocols.knn import PROTOCOL as KNN
from ..protocols.knn import KnnOptions, knn
from ..splits import TESTED, Sources, SplitOptions, label_map, load_task, open_first, renumbered
from . import pictures


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

    def open(self, split: str | None = None) -> Source:
        """The source of the split, or of another one of the same data set."""
        named = split or self.split
        return open_first(str(self.dataset), [named] if named else [*TESTED, "train"], **self.columns())


@dataclass(frozen=True)
class ImagesOptions(ShownOptions):
    """Single images: files, or some of a data set."""

    images: tuple[Path, ...] | None = option(None, "image files or folders, instead of a data set")
    count: int = option(8, "images at most", AT_LEAST_ONE)
    image_size: int | None = option(None, "pixels of the shorter side; default: native", AT_LEAST_ONE)

    def read(self) -> list[Image.Image]:
        if (self.images is None) == (self.dataset is None):
            raise ValueError("name --images (or --frames), or --dataset")
        if self.images is not None:
            return read_images(self.images, self.count)
        return [image for image, _label, _name in self.open().examples(limit=self.count)]


@dataclass(frozen=True)
class PcaOptions(ImagesOptions):
    """Principal components of patch tokens."""

    frames: Path | None = option(None, "folder of the frames of a video: a picture each")
    each: bool = option(False, "a basis of its own for each image")


@dataclass(frozen=True)
class DataSetOptions(ShownOptions, CacheOptions):
    """Features of a split, and how they are computed."""

    def features(self, backbone: Backbone, source: Source, taken: FeatureOptions) -> Features:
        return cached_features(backbone, source, taken, self.cache, self.batch_size)


@dataclass(frozen=True)
class MapOptions(DataSetOptions):
    """A map in two dimensions."""

    method: str = option("tsne", "umap needs the package umap-learn", ("tsne", "umap"))
    seed: int = option(0, "of all that is drawn")


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


def draw_pca(backbones: Sequence[Backbone], options: PcaOptions, _taken: FeatureOptions, output: Path) -> Path:
    """A sheet, or a folder of frames."""
    if options.frames is None:
        images, each = options.read(), options.each
        return pictures.write_pca(backbones, images, _png(output), options.image_size, shared=not each)
    backbone = _only(backbones, "frames are drawn")
    pictures.write_pca_frames(backbone, read_images([options.frames], None), output, options.image_size)
    return output


def draw_attention(
    backbones: Sequence[Backbone], options: ImagesOptions, _taken: FeatureOptions, output: Path
) -> Path:
    """A sheet, a row an image."""
    return pictures.write_attention(backbones, options.read(), _png(output), options.image_size)


def draw_map(backbones: Sequence[Backbone], options: MapOptions, taken: FeatureOptions, output: Path) -> Path:
    """A map of a labeled set."""
    backbone, output, source = _only(backbones, "a map is drawn"), _png(output), options.open()
    features = options.features(backbone, source, taken)
    if features.labels.ndim > 1:
        raise ValueError("a map shows one class an image")
    return pictures.write_map(features, source.label_names, output, options.method, options.seed)


def draw_confusion(
    backbones: Sequence[Backbone], options: ConfusionOptions, taken: FeatureOptions, output: Path
) -> Path:
    """Which class is taken for which, by kNN."""
    backbone, output = _only(backbones, "a confusion matrix is drawn"), _png(output)
    shown, train = options.open(), options.open(options.train_split)
    task = load_task(backbone, Sources(train, shown), taken, options.cache, options.batch_size)
    if task.multi_label:
        raise ValueError("a confusion matrix needs one class an image")
    predicted = knn(task, KnnOptions(k=(options.k,))).predictions
    return pictures.write_confusion(task.test.labels.numpy(), predicted, task.label_names, output)


def draw_neighbors(
    backbones: Sequence[Backbone], options: NeighborOptions, taken: FeatureOptions, output: Path
) -> Path:
    """Nearest images of a few queries."""
    backbone, output = _only(backbones, "neighbors are drawn"), _png(output)
    shown, train = options.open(), options.open(options.train_split)
    queries, bank = (options.features(backbone, source, taken) for source in (shown, train))
    queries = renumbered(queries, label_map(train.label_names, shown.label_names))
    by_id = (_images_by_id(shown, queries.ids), _images_by_id(train, bank.ids))
    alike = shown.fingerprint == train.fingerprint
    return pictures.write_neighbors(queries, bank, by_id, train.label_names, output, options.count, options.k, alike)


@dataclass(frozen=True)
class Picture:
    """One kind of picture: its title, the dataclass of its options, what draws it from (backbones, options, what is
    taken of the model, path), and the blocks from the end that it takes where nothing is said."""

    title: str
    options: type
    draw: Callable[..., Path]
    layers: int = FeatureOptions.layers

    @property
    def of_features(self) -> bool:
        return issubclass(self.options, DataSetOptions)


def draw(kind: str, options: ShownOptions, taken: FeatureOptions) -> Path:
    """Opens the models, draws, and says where the picture is.

    Raises:
        ValueError: a model, the images or an option is not what the picture needs.
    """
    device = process_state().device
    names, trust = options.model or (), options.trust_remote_code
    backbones = [open_backbone(name, trust).to(device) for name in names]
    return PICTURES[kind].draw(backbones, options, taken, options.output)


PICTURES = {
    "pca": Picture("patch tokens as colors, several models side by side", PcaOptions, draw_pca),
    "attention": Picture("what CLS attends to in the last block", ImagesOptions, draw_attention),
    "map": Picture("t-SNE or UMAP of a labeled set", MapOptions, draw_map),
    "confusion": Picture("which class is taken for which, by kNN", ConfusionOptions, draw_confusion, KNN.layers),
    "neighbors": Picture("nearest images, as a contact sheet", NeighborOptions, draw_neighbors),
}


def read_images(paths: Sequence[Path], count: int | None) -> list[Image.Image]:
    """Images of files and folders, by name.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.iterdir() if has_image_suffix(file))
        else:
            files.append(path)
    if not files:
        raise ValueError(f"there are no images in {', '.join(map(str, paths))}")
    try:
        return [open_image(None, str(file)).load() for file in files[:count]]
    except BadImage as error:
        raise ValueError(f"an image cannot be read: {error}") from error


def _only(backbones: Sequence[Backbone], what: str) -> Backbone:
    if len(backbones) != 1:
        raise ValueError(f"{what} for one model at a time")
    return backbones[0]


def _images_by_id(source: Source, ids: list[str]) -> Callable[[int], Image.Image]:
    """A function from a number in `ids` to the image."""
    if not source.is_map_style:
        raise ValueError("neighbors are read at random: use --streaming false")
    numbers = image_numbers(source)

    def read(number: int) -> Image.Image:
        raw = source.example(numbers[ids[number]])
        return open_image(raw.data, raw.path).load()

    return read


def _png(path: Path) -> Path:
    if path.suffix.lower() != ".png":
        raise ValueError(f"--output ends in .png, not {path.name!r}")
    return path
