# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`visreg visualize KIND`: pictures of what frozen models see.

visreg visualize pca --model A B --images photos/ --output pca.png
visreg visualize map --model A --dataset digits --split test --output map.png
"""

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from PIL import Image

from ..backbones import Backbone, open_backbone
from ..data import open_stream
from ..data.decode import BadImage, open_image
from ..errors import UserError, setting_up
from ..evaluation import pictures
from ..evaluation.features import FeatureCache, FeatureSettings, cached_features
from ..evaluation.knn import knn
from ..evaluation.processes import processes
from ..evaluation.task import Sources, label_map, load_task, renumbered
from .evaluate import add_feature_options, boolean
from .parsing import OneLineParser


KINDS = {
    "pca": "patch tokens as colours, several models side by side",
    "attention": "what CLS attends to in the last block",
    "map": "t-SNE or UMAP of a labelled set",
    "confusion": "which class is taken for which, by kNN",
    "neighbours": "nearest images, as a contact sheet",
}
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm")


def main(argv: list[str]) -> None:
    """Raises UserError for a mistake."""
    if not argv or argv[0] in ("-h", "--help"):
        lines = "\n".join(f"  {name:<11} {words}" for name, words in KINDS.items())
        print(f"usage: visreg visualize KIND --model MODEL --output FILE.png [options]\n\n{lines}")
        return
    kind, rest = argv[0], argv[1:]
    if kind not in KINDS:
        raise UserError(f"there is no picture '{kind}'; there are {', '.join(KINDS)}")
    parser = OneLineParser(f"visualize {kind}", KINDS[kind])
    parser.add_argument("--model", nargs="+", required=True, help="as in `visreg evaluate`; pca, attention: several")
    parser.add_argument("--trust_remote_code", action="store_true", help="run the code that a Hub repository brings")
    parser.add_argument("--output", type=Path, required=True, help="a .png file, or a folder for --frames")
    add_data_options(parser, kind)
    options = parser.parse_args(rest)
    with setting_up():
        draw = draw_images if kind in ("pca", "attention") else draw_dataset
        written = draw(kind, options, [open_backbone(name, options.trust_remote_code) for name in options.model])
    print(f"written to {written}", file=sys.stderr)


def add_data_options(parser: ArgumentParser, kind: str) -> None:
    for name in ("dataset_config", "image_column", "label_column"):
        parser.add_argument(f"--{name}", help="as in `visreg evaluate`")
    parser.add_argument("--streaming", type=boolean, help="as in `visreg evaluate`")
    parser.add_argument("--split", default="test", help="split that is shown (default test)")
    parser.add_argument("--dataset", required=kind not in ("pca", "attention"), help="digits, Hub id, folder or files")
    if kind in ("pca", "attention"):
        parser.add_argument("--images", type=Path, nargs="+", help="image files or folders, instead of a data set")
        parser.add_argument("--count", type=int, default=8, help="images at most (default 8)")
        parser.add_argument("--image_size", type=int, help="pixels of the shorter side; default: native")
    if kind == "pca":
        parser.add_argument("--frames", type=Path, help="folder of the frames of a video: a picture each")
        parser.add_argument("--each", action="store_true", help="a basis of its own for each image")
        return
    if kind != "attention":
        add_feature_options(parser)
    if kind == "map":
        parser.add_argument("--method", choices=("tsne", "umap"), default="tsne", help="(default tsne)")
    if kind in ("confusion", "neighbours"):
        parser.add_argument("--train_split", default="train", help="images that are compared with (default train)")
        parser.add_argument("--k", type=int, default=20 if kind == "confusion" else 7, help="neighbours")
    if kind == "neighbours":
        parser.add_argument("--count", type=int, default=8, help="queries (default 8)")


def draw_images(kind: str, options: Namespace, models: list[Backbone]) -> Path:
    """Pictures of single images, one column a model."""
    for model in models:
        model.to(processes().device)
    if kind == "pca" and options.frames is not None:
        if len(models) > 1:
            raise ValueError("frames are drawn for one model at a time")
        pictures.write_pca_frames(models[0], read_images([options.frames], None), options.output, options.image_size)
        return options.output
    if (options.images is None) == (options.dataset is None):
        raise ValueError("name --images (or --frames), or --dataset")
    if options.images is not None:
        images = read_images(options.images, options.count)
    else:
        images = [image for image, _label, _name in open_split(options, options.split).examples(limit=options.count)]
    output = png(options.output)
    if kind == "attention":
        return pictures.write_attention(models, images, output, options.image_size)
    return pictures.write_pca(models, images, output, options.image_size, together=not options.each)


def draw_dataset(kind: str, options: Namespace, models: list[Backbone]) -> Path:
    """Pictures of a whole data set."""
    if len(models) != 1:
        raise ValueError(f"{kind} is drawn for one model at a time")
    output, (model,) = png(options.output), models
    model.to(processes().device)
    names = ("layers", "pooling", "image_size", "limit", "precision", "seed")
    settings = FeatureSettings(**{name: getattr(options, name) for name in names})
    cache, shown = FeatureCache(options.cache_dir), open_split(options, options.split)
    if kind == "map":
        features = cached_features(model, shown, settings, cache, options.batch_size)
        if features.labels.ndim > 1:
            raise ValueError("a map shows one class an image")
        return pictures.write_map(features, shown.label_names, output, options.method, options.seed)
    train = open_split(options, options.train_split)
    if kind == "neighbours":
        return draw_neighbours(model, shown, train, settings, cache, options, output)
    task = load_task(model, Sources(train, shown), settings, cache, options.batch_size)
    if task.multi_label:
        raise ValueError("a confusion matrix needs one class an image")
    predicted = knn(task, (options.k,), seed=options.seed).predictions
    return pictures.write_confusion(task.test.labels.numpy(), predicted, task.label_names, output)


def draw_neighbours(model, shown, train, settings, cache, options: Namespace, output: Path) -> Path:
    """Nearest images of a few queries."""
    if options.k < 1 or options.count < 1:
        raise ValueError("k and count must be at least 1")
    queries, bank = (cached_features(model, source, settings, cache, options.batch_size) for source in (shown, train))
    queries = renumbered(queries, label_map(train.label_names, shown.label_names))
    by_id = (images_by_id(shown, queries.ids), images_by_id(train, bank.ids))
    return pictures.write_neighbours(queries, bank, by_id, train.label_names, output, options.count, options.k)


def images_by_id(source, ids: list[str]):
    """A function from a place in `ids` to the picture."""
    if not source.is_map_style:
        raise ValueError("neighbours are read at random: use --streaming false")
    numbers = {str(row): number for number, row in enumerate(source.rows.tolist())}

    def read(place: int) -> Image.Image:
        raw = source.example(numbers[ids[place]])
        return open_image(raw.data, raw.path).load()

    return read


def open_split(options: Namespace, split: str):
    names = ("dataset_config", "image_column", "label_column", "streaming")
    return open_stream(options.dataset, split=split, **{name: getattr(options, name) for name in names})


def read_images(paths: list[Path], count: int | None) -> list[Image.Image]:
    """Images of files and folders, by name.

    Raises:
        ValueError: there is none, or one cannot be read.
    """
    files: list[Path] = []
    for path in paths:
        inside = (
            sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES) if path.is_dir() else [path]
        )
        files += inside
    if not files:
        raise ValueError(f"there are no images in {', '.join(map(str, paths))}")
    try:
        return [open_image(None, str(file)).load() for file in files[:count]]
    except BadImage as error:
        raise ValueError(f"an image cannot be read: {error}") from error


def png(path: Path) -> Path:
    if path.suffix.lower() != ".png":
        raise ValueError(f"--output ends in .png, not {path.name!r}")
    return path
