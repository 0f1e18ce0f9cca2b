# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The images of a data set that look most like a photo: cosine similarity of features, exact, and a sheet to look at.

Features come out of the cache, whose key holds the weights and the files: another model or folder is embedded anew.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from ..backbones import Backbone, open_backbone
from ..data import BadImage, MapSource, Source
from ..data.decode import open_image
from ..data.sources import check_output
from ..distributed import process_state
from .cache import cached_features
from .features import embed_batch, image_numbers
from .nearest import nearest
from .options import QUERIES, FeatureOptions, SearchOptions
from .preprocessing import transform_for
from .reports.pictures import save_sheet


_CELL = 152  # pixels of a picture of the sheet


class Found(NamedTuple):
    """`query`: its path or id; `nearest`: (cosine similarity, path or id), the nearest first."""

    query: str
    nearest: list[tuple[float, str]]


def search(options: SearchOptions) -> list[Found]:
    """Writes the sheet.

    Raises:
        ValueError: the model, the data set or a query cannot be read.
    """
    if options.output.suffix.lower() != ".png":
        raise ValueError(f"--output ends in .png, not {options.output.name!r}")
    check_output(options.output, options.dataset)
    source = options.open()
    if not isinstance(source, MapSource):
        raise ValueError("images that were found are read at random: use --streaming false")
    queries = [read(path, options.max_pixels) for path in options.query or ()]
    backbone = open_backbone(options.model or "", options.trust_remote_code).to(process_state().device)
    taken = FeatureOptions(layers=options.layers)
    bank = cached_features(backbone, source, taken, options.cache, options.batch_size)
    rows = [image_numbers(source)[name] for name in bank.ids]  # in the source, of each row of the bank
    names = [name_of(source, row) for row in rows]
    if queries:
        vectors, labels = embed(backbone, queries, taken), list(map(str, options.query or ()))
        itself = [{number for number, name in enumerate(names) if same_file(name, label)} for label in labels]
    else:
        chosen = np.unique(np.linspace(0, len(rows) - 1, min(QUERIES, len(rows))).round().astype(int)).tolist()
        vectors, labels, itself = bank.features[chosen], [names[n] for n in chosen], [{n} for n in chosen]
        queries = [picture(source, rows[number]) for number in chosen]
    results, sheet, captions = [], [], []
    parts = list(zip(*nearest(vectors, bank.features, options.k + max(map(len, itself))), strict=True))
    similarities, orders = (torch.cat(part).tolist() for part in parts)
    for image, label, own, values, order in zip(queries, labels, itself, similarities, orders, strict=True):
        near = [pair for pair in zip(values, order, strict=True) if pair[1] not in own][: options.k]
        results.append(Found(label, [(value, names[number]) for value, number in near]))
        sheet.append([image, *(picture(source, rows[number]) for _value, number in near)])
        captions.append(["query", *(f"{value:.3f} {Path(names[number]).name}" for value, number in near)])
    save_sheet(sheet, captions, options.output, _CELL)
    return results


def embed(backbone: Backbone, images: list[Image.Image], taken: FeatureOptions) -> torch.Tensor:
    """Features (m, d) of some images in memory, on the CPU."""
    transform = transform_for(backbone, taken.image_size)
    with torch.no_grad(), backbone.evaluating():
        parts = [embed_batch(backbone, transform, [transform(image)], taken) for image in images]
    return torch.cat(parts).cpu()


def read(path: Path, max_pixels: int | None = None) -> Image.Image:
    """A photo; raises ValueError where it cannot be read."""
    try:
        return open_image(None, str(path), max_pixels).load()
    except BadImage as error:
        raise ValueError(f"--query {path} cannot be read: {error}") from error


def picture(source: Source, number: int) -> Image.Image:
    """An image of the set, which was read before."""
    raw = source.example(number)
    return raw.open().load()


def name_of(source: Source, number: int) -> str:
    """The path of an image, its number where it has none."""
    raw = source.example(number)
    return raw.path or f"image {raw.id}"


def same_file(first: str, second: str) -> bool:
    """Whether two names are those of one file."""
    return Path(first).exists() and Path(first).samefile(second)
