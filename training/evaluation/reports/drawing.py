# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The pictures of `visreg visualize`: what each is of, its options, and how images come to it."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ...backbones import Backbone, open_backbone
from ...data import BadImage, Source
from ...data.decode import has_image_suffix, open_image
from ...data.sources import check_output
from ...distributed import process_state
from ..features import image_numbers
from ..options import FeatureOptions
from ..protocols.knn import KnnOptions, knn
from ..splits import Sources, label_map, load_task, renumbered
from . import pictures
from .picture_options import ConfusionOptions, ImagesOptions, MapOptions, NeighborOptions, PcaOptions, ShownOptions


logger = logging.getLogger(__name__)


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


def draw(kind: str, options: ShownOptions, taken: FeatureOptions) -> Path:
    """Opens the models, draws, and says where the picture is.

    Raises:
        ValueError: a model, the images or an option is not what the picture needs.
    """
    if not getattr(options, "frames", None):
        check_output(options.output, getattr(options, "dataset", None), *(getattr(options, "images", None) or ()))
    device = process_state().device
    names, trust = options.model or (), options.trust_remote_code
    backbones = [open_backbone(name, trust).to(device) for name in names]
    return DRAWN_BY[kind](backbones, options, taken, options.output)


DRAWN_BY: dict[str, Callable[..., Path]] = {
    "pca": draw_pca,
    "attention": draw_attention,
    "map": draw_map,
    "confusion": draw_confusion,
    "neighbors": draw_neighbors,
}


def read_images(paths: Sequence[Path], count: int | None, max_pixels: int | None = None) -> list[Image.Image]:
    """Images of files and of folders with all that is in them, by name; what cannot be read is left out.

    Raises:
        ValueError: there is none, or none that can be read.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if has_image_suffix(file))
        else:
            files.append(path)
    if not files:
        raise ValueError(f"there are no images in {', '.join(map(str, paths))}")
    images: list[Image.Image] = []
    for file in files:
        if count is not None and len(images) >= count:
            break
        try:
            images.append(open_image(None, str(file), max_pixels).load())
        except BadImage as error:
            logger.warning("Left out %s: %s", file, error)
    if not images:
        raise ValueError(f"none of the {len(files)} images in {', '.join(map(str, paths))} can be read")
    return images


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
        return raw.open().load()

    return read


def _png(path: Path) -> Path:
    if path.suffix.lower() != ".png":
        raise ValueError(f"--output ends in .png, not {path.name!r}")
    return path
