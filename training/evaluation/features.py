# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The one way from images to frozen features: `extract`. With a source and a cache in front of it: cache.py.

    features = extract_features(wrap_backbone(model), source.examples())

n images, d width of the backbone, L layers, C classes; features (n, L * d), twice as wide with pooling `both`.
"""

import functools
import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from ..backbones import Backbone
from ..data import Source
from ..data.decode import BadImage, RawExample
from ..data.skips import SkipLog, skip_record
from ..progress import tracked
from ..seeding import torch_generator
from .options import FeatureOptions
from .preprocessing import EvaluationTransform, threaded, transform_for


logger = logging.getLogger(__name__)

_CHUNK = 1024  # images checked at once
_SPARSE = 2  # the highest class over the number of classes, from which on they are numbered anew


class Features(NamedTuple):
    """`features`: (n, L * d) float32 on the CPU; `labels`: (n,), -1 where an image has none, or (n, C) of 0 and 1;
    `ids`: n strings; `digests`: (n,) of the prepared pixels (`digest`), None where they are not known; `paths`: n
    names of the images' files (`Source.file_name`), "" where one has none; None where they are not known;
    `classes`: those of the columns of (n, C) labels where they are sparse numbers, None where column c is class c."""

    features: torch.Tensor
    labels: torch.Tensor
    ids: list[str]
    digests: torch.Tensor | None = None
    paths: list[str] | None = None
    classes: list[int] | None = None


@torch.no_grad()
def extract(
    backbone: Backbone,
    transform: EvaluationTransform,
    images: Iterable[tuple[int, torch.Tensor, Any, str]],
    options: FeatureOptions,
    batch_size: int = 256,
    label_names: list[str] | None = None,
) -> tuple[Features, torch.Tensor]:
    """Features of prepared images, and the positions of these in their source.

    A model that is being trained is put in evaluation mode, so that drop path is off, and back.

    Args:
        images: (position, uint8 pixels (C, H, W) from `transform`, label or None or a list of classes, id).
        label_names: of all classes, where images have several.

    Raises:
        ValueError: a feature is not finite.
    """
    rows, labels, ids, positions, digests = [], [], [], [], [torch.zeros(0, dtype=torch.long)]
    with backbone.evaluating():
        for numbers, pixels, targets, names in batches(images, batch_size):
            rows.append(embed_batch(backbone, transform, pixels, options).cpu())
            check_finite(rows[-1], names, "image")
            digests.append(torch.stack([digest(image) for image in pixels]))
            labels += targets
            ids += names
            positions += numbers
    features = torch.cat(rows) if rows else torch.zeros(0, 0)
    numbers, classes = label_tensor(labels, label_names)
    found = Features(features, numbers, ids, torch.cat(digests), None, classes)
    return found, torch.tensor(positions, dtype=torch.long)


def embed_batch(
    backbone: Backbone, transform: EvaluationTransform, pixels: list[torch.Tensor], options: FeatureOptions
) -> torch.Tensor:
    """Float32 features of some images, uint8 (C, H, W) each, on the device of the backbone."""
    inputs = transform.normalize(torch.stack(pixels).to(backbone.device))
    with options.autocast(backbone.device):
        return backbone.embed(inputs, options.layers, options.pooling).float()


def check_finite(values: torch.Tensor, ids: Sequence[str], what: str) -> None:
    """Refuses (n, ...) values of n images of which one is not finite, with its id.

    Raises:
        ValueError: "the features of training image 'dog.jpg' are not finite ...".
    """
    finite = [part.flatten(1).isfinite().all(1) for part in values.split(_CHUNK)]  # whole, it would make two copies
    bad = (~torch.cat(finite)).nonzero().flatten().tolist() if finite else []
    if not bad:
        return
    raise ValueError(
        f"the features of {what} {ids[bad[0]]!r} are not finite ({len(bad)} of {len(ids)} images): nothing is measured"
    )


def digest(pixels: torch.Tensor) -> torch.Tensor:
    """64 bits of the content of an image, uint8 (C, H, W): equal for equal pixels, by chance once in 2 ** 33 pairs.

    A sum of its words, each times a random odd number; a hash of the bytes would take as long as a small network.
    """
    flat = functional.pad(pixels.flatten(), (0, -pixels.numel() % 4))
    return (flat.view(torch.int32).long() * _odd_numbers(len(flat) // 4)).sum() + len(flat)


@functools.lru_cache(maxsize=4)
def _odd_numbers(count: int) -> torch.Tensor:
    return torch.randint(-(2**62), 2**62, (count,), generator=torch_generator("digest", 0)) * 2 + 1


def extract_features(
    backbone: Backbone,
    examples: Iterable[tuple[Any, Any, str]],
    options: FeatureOptions | None = None,
    batch_size: int = 256,
) -> Features:
    """Features of images in memory, in this process: the end of a run and the analyses take them so.

    Args:
        backbone: on its device.
        examples: (PIL image, label or None, id).
        options: None for CLS of the last block.

    Raises:
        ValueError: there is no image.
    """
    options = options or FeatureOptions(layers=1)
    transform = transform_for(backbone, options.image_size)
    counted = enumerate(tracked(examples, None, "features"))
    images = ((number, transform(image), label, name) for number, (image, label, name) in counted)
    features, positions = extract(backbone, transform, images, options, batch_size)
    if not len(positions):
        raise ValueError("there is no image to take features of")
    return features


def batches(examples: Iterable, size: int) -> Iterator[tuple[list, ...]]:
    """Examples transposed into lists of at most `size`; the last, shorter one is kept."""
    source = iter(examples)
    while chunk := list(islice(source, size)):
        yield tuple(list(column) for column in zip(*chunk, strict=True))


def readable(
    transform: EvaluationTransform,
    source: Source,
    options: FeatureOptions,
    rank: int = 0,
    world: int = 1,
    paths: dict[str, str] | None = None,
) -> Iterator[tuple[int, torch.Tensor, Any, str]]:
    """(position, uint8 pixels, label, id) of a rank's share of a source; unreadable images are left out and counted.

    Args:
        paths: gets the file's name of each id.

    Raises:
        BadDataError: more than `source.max_bad_share` of the images cannot be read.
    """

    def load(numbered: tuple[int, RawExample]) -> tuple[int, RawExample, torch.Tensor | BadImage]:
        position, raw = numbered
        try:
            return position, raw, transform(raw.open().load())
        except BadImage as error:
            return position, raw, error

    total = source.num_examples
    if total is not None:
        total = len(range(rank, min(total, total if options.limit is None else options.limit), world))
    log = SkipLog(source.max_bad_share, total=total, at_end=True, flag="--max_bad_share")
    for position, raw, pixels in threaded(load, share(source, options, rank, world), ahead=transform.ahead):
        if isinstance(pixels, BadImage):
            logger.warning("Left out image %s (%s): %s", raw.id, raw.path, pixels)
            log.add(1, [skip_record(pixels.kind, raw.id, raw.path, pixels.detail)])
            continue
        log.add(1, [])
        if paths is not None:
            paths[raw.id] = source.file_name(raw)
        yield position, pixels, raw.label, raw.id
    log.finish()


def share(source: Source, options: FeatureOptions, rank: int, world: int) -> Iterator[tuple[int, RawExample]]:
    """(position, undecoded example) of every world-size-th image.

    Splits are often sorted by class: with a limit, images are drawn from all of a split. Of a stream the first ones
    are taken, as it would have to be read to its end for others.
    """
    if not source.is_map_style:
        return islice(enumerate(source.raw_examples()), rank, options.limit, world)
    positions: range | list[int] = range(source.num_examples)
    if options.limit is not None and options.limit < source.num_examples:
        order = torch.randperm(source.num_examples, generator=torch_generator("features", options.seed))
        positions = sorted(order[: options.limit].tolist())
    return ((position, source.example(position)) for position in positions[rank::world])


def label_tensor(labels: list, names: list[str] | None) -> tuple[torch.Tensor, list[int] | None]:
    """(n,) classes, -1 where there is none; or (n, C) of 0 and 1 where images have lists of classes; and the `classes`
    of `Features`."""
    if not any(isinstance(label, list) for label in labels):
        return torch.tensor([-1 if label is None else label for label in labels], dtype=torch.long), None
    labels = [[number for number in label or () if number >= 0] for label in labels]
    found = torch.tensor(sorted(set().union(*labels)), dtype=torch.long)
    values = None if names or not len(found) else sparse_values(found)
    if values is not None:
        column = {number: place for place, number in enumerate(values.tolist())}
        labels = [[column[number] for number in label] for label in labels]
    width = len(names or ()) or 1 + max((max(label, default=0) for label in labels), default=0)
    hot = torch.zeros(len(labels), width, dtype=torch.uint8)
    for row, label in enumerate(labels):
        hot[row, label] = 1
    return hot, None if values is None else values.tolist()


def sparse_values(labels: torch.Tensor) -> torch.Tensor | None:
    """The classes that occur, ascending, where most numbers up to the highest do not; else None."""
    values = labels.unique()
    return None if int(values.min()) < 0 or int(values.max()) < _SPARSE * len(values) else values


def same_columns(parts: list[Features]) -> list[Features]:
    """Parts of one set whose labels (n, C) have the same columns: of the widest, or of all classes that occur in any
    part, where these are sparse numbers."""
    width = max(part.labels.shape[1] for part in parts)
    if all(part.classes is None for part in parts):
        return [widened(part, width) for part in parts]
    taken = [part.labels.any(0).nonzero().flatten().tolist() for part in parts]
    known = [[part.classes[c] for c in own] if part.classes else own for part, own in zip(parts, taken, strict=True)]
    found = torch.tensor(sorted(set().union(*known)), dtype=torch.long)
    values = sparse_values(found)
    classes = found.tolist() if values is not None else range(int(found.max()) + 1)
    column = {number: place for place, number in enumerate(classes)}
    aligned = []
    for part, columns, own in zip(parts, taken, known, strict=True):
        hot = torch.zeros(len(part.labels), len(column), dtype=torch.uint8)
        hot[:, [column[number] for number in own]] = part.labels[:, columns]
        aligned.append(part._replace(labels=hot, classes=None if values is None else list(classes)))
    return aligned


def widened(features: Features, width: int) -> Features:
    """With labels (n, width): no image has one of the classes that are added."""
    missing = width - features.labels.shape[1]
    return features._replace(labels=functional.pad(features.labels, (0, missing))) if missing else features


def subset(features: Features, rows: torch.Tensor) -> Features:
    """The images of the given numbers."""
    digests = None if features.digests is None else features.digests[rows]
    ids = [features.ids[row] for row in rows.tolist()]
    paths = None if features.paths is None else [features.paths[row] for row in rows.tolist()]
    return Features(features.features[rows], features.labels[rows], ids, digests, paths, features.classes)


def image_numbers(source: Source) -> dict[str, int]:
    """Number in a map-style source of each id."""
    return {str(row): number for number, row in enumerate(source.rows.tolist())}
