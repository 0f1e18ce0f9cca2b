# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Frozen features of labelled images: extracted once, shared out over processes, kept in a cache of safetensors files.

    features = cached_features(model, source, FeatureSettings(layers=4), cache)

n images, d width of the backbone, L layers, C classes; features (n, L * d), twice as wide with pooling `both`.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import torch
from pyarrow import parquet
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from ..backbones import Backbone
from ..data.decode import BadImage, open_image
from ..data.skips import SkipLog, skip_record
from .processes import from_all, processes, together
from .transform import EvaluationTransform, threaded, transform_for


logger = logging.getLogger(__name__)

_FORMAT = 2  # of the cached files


class Features(NamedTuple):
    """`features`: (n, L * d) float32 on the CPU; `labels`: (n,), -1 where an image has none, or (n, C) of 0 and 1;
    `ids`: n strings."""

    features: torch.Tensor
    labels: torch.Tensor
    ids: list[str]


@dataclass(frozen=True)
class FeatureSettings:
    """What is taken of a model.

    Attributes:
        layers: blocks from the end, concatenated (4: paper, evaluation).
        pooling: `cls`, `mean`, `both`; None for CLS where there is one, else the mean of the patches.
        image_size: side in pixels; None for the model's native size.
        limit: at most so many images of a split: a sample of it, the first ones of a stream.
        seed: of the sample; None without a limit, so that it does not matter.
        precision: `float32`, or `bfloat16` for autocast; features are stored in float32.
    """

    layers: int = 4
    pooling: str | None = None
    image_size: int | None = None
    limit: int | None = None
    precision: str = "float32"
    seed: int | None = 0

    def __post_init__(self):
        if self.layers < 1:
            raise ValueError(f"layers must be at least 1, got {self.layers}")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, got {self.limit}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"precision is float32 or bfloat16, not {self.precision!r}")
        if self.limit is None:
            object.__setattr__(self, "seed", None)

    def autocast(self, device: torch.device):
        return torch.autocast(device.type, torch.bfloat16) if self.precision == "bfloat16" else nullcontext()


@torch.no_grad()
def extract_features(
    backbone: nn.Module,
    processor: Any,
    examples: Iterable[tuple[Any, int | None, str]],
    layers: int = 1,
    batch_size: int = 256,
) -> Features:
    """CLS tokens of the last `layers` blocks, each through the final norm, concatenated (paper, evaluation: 4 layers).

    For a model in memory, in one process; `cached_features` is for anything larger. The model is put in evaluation
    mode, so that drop path is off, and back into the mode it was in.

    Args:
        backbone: a `VISRegViTModel` on its device.
        processor: image processor of the checkpoint.
        examples: (PIL image, label or None, id).

    Raises:
        ValueError: there is no image.
    """
    training = backbone.training
    backbone.eval()
    rows, labels, ids = [], [], []
    try:
        for images, targets, names in batches(examples, batch_size):
            pixels = processor(images, return_tensors="pt")["pixel_values"].to(backbone.device)
            rows.append(cls_tokens(backbone, pixels, layers).float().cpu())
            labels += [-1 if target is None else target for target in targets]
            ids += names
    finally:
        backbone.train(training)
    if not rows:
        raise ValueError("there is no image to take features of")
    return Features(torch.cat(rows), torch.tensor(labels), ids)


def cls_tokens(backbone: nn.Module, pixels: torch.Tensor, layers: int) -> torch.Tensor:
    """(B, layers * d) from pixels (B, C, H, W)."""
    if layers == 1:
        return backbone(pixels).pooler_output
    states = backbone(pixels, output_hidden_states=True).hidden_states[-layers:]
    return torch.cat([backbone.layernorm(state)[:, 0] for state in states], dim=1)


def batches(examples: Iterable, size: int) -> Iterator[tuple[list, ...]]:
    """Examples transposed into lists of at most `size`; the last, shorter one is kept."""
    source = iter(examples)
    while chunk := list(islice(source, size)):
        yield tuple(list(column) for column in zip(*chunk, strict=True))


class FeatureCache:
    """A folder of features, one file for each model, data and transform. Files are whole or absent."""

    def __init__(self, folder: str | os.PathLike | None = None):
        self.folder = Path(folder) if folder else default_cache()

    def path(self, key: dict[str, Any]) -> Path:
        return self.folder / f"{hashlib.sha256(canonical(key).encode()).hexdigest()[:32]}.safetensors"


def default_cache() -> Path:
    """`VISREG_CACHE`, or visreg/ in the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("VISREG_CACHE") or Path(root) / "visreg") / "features"


def feature_key(model: Backbone, source: Any, settings: FeatureSettings, transform: EvaluationTransform) -> dict:
    """Everything that decides the values: weights, data, transform, settings. The name of the model does not."""
    described = model.description()
    return {
        "format": _FORMAT,
        "weights": described["weights"],
        "architecture": described["architecture"],
        "class": described["class"],
        "data": source.content_fingerprint,
        "label_column": source.label_column,
        "transform": transform.description(),
        "settings": asdict(settings),
    }


def cached_features(
    model: Backbone,
    source: Any,
    settings: FeatureSettings | None = None,
    cache: FeatureCache | None = None,
    batch_size: int = 256,
) -> Features:
    """Features of all images of a source, out of the cache or extracted by all processes together.

    Each process decodes and embeds every world-size-th image, so that none is taken twice and batch sizes need divide
    nothing. Processes on several machines need a cache folder that they share.

    Args:
        source: of `open_stream`.
        cache: None for the user's cache folder.

    Raises:
        ValueError: there is no image, or too many cannot be read.
    """
    settings, cache = settings or FeatureSettings(), cache or FeatureCache()
    transform = transform_for(model, settings.image_size)
    key = feature_key(model, source, settings, transform)
    path, state = cache.path(key), processes()
    # Nobody looks for the file while another already writes it.
    if not all(from_all(path.is_file())):
        rank, world = state.process_index, state.num_processes
        parts = [path.with_suffix(f".{index}of{world}.part") for index in range(world)]
        with together():
            part = extract_share(model, transform, source, settings, batch_size, rank, world)
            write_features(parts[rank], *part, key)
        with together():
            if state.is_main_process:
                merge(parts, path, key)
    with together():
        return read_features(path)


@torch.no_grad()
def extract_share(
    model: Backbone, transform, source, settings: FeatureSettings, batch_size: int, rank: int, world: int
) -> tuple[Features, torch.Tensor]:
    """Features of the images rank, rank + world, ... of a source, and the numbers of those that could be read."""
    rows, labels, ids, places = [], [], [], []
    images = readable(transform, source, settings, rank, world)
    for places_, pixels, targets, names in batches(images, batch_size):
        stacked = transform.normalise(torch.stack(pixels).to(model.device))
        with settings.autocast(model.device):
            rows.append(model.embed(stacked, settings.layers, settings.pooling).float().cpu())
        labels += targets
        ids += names
        places += places_
    if not rows and world == 1:
        raise ValueError(f"{source.name}, split {source.split}: there is no image to take features of")
    width = rows[0].shape[1] if rows else 0
    features = torch.cat(rows) if rows else torch.zeros(0, width)
    return Features(features, label_tensor(labels, source.label_names), ids), torch.tensor(places, dtype=torch.long)


def readable(transform, source, settings: FeatureSettings, rank: int = 0, world: int = 1) -> Iterator[tuple]:
    """(place, uint8 pixels, label, id) of a share of the images; unreadable ones are left out and counted.

    Raises:
        BadDataError: more than a hundredth of the images cannot be read.
    """

    def load(numbered):
        place, raw = numbered
        try:
            return place, raw, transform(open_image(raw.data, raw.path).load())
        except BadImage as error:
            return place, raw, error

    log = SkipLog(enough=min(1000, source.num_examples or 1000))
    for place, raw, pixels in threaded(load, share(source, settings, rank, world)):
        if isinstance(pixels, BadImage):
            logger.warning("Left out image %s (%s): %s", raw.id, raw.path, pixels)
            log.add(1, [skip_record(pixels.kind, raw.id, raw.path, pixels.detail)])
            continue
        log.add(1, [])
        yield place, pixels, raw.label, raw.id


def share(source: Any, settings: FeatureSettings, rank: int, world: int) -> Iterator[tuple[int, Any]]:
    """(place, undecoded example) of every world-size-th image.

    Splits are often sorted by class: with a limit, images are drawn from all of a split. Of a stream the first ones
    are taken, as it would have to be read to its end for others.
    """
    if not source.is_map_style:
        return islice(enumerate(source.raw_examples()), rank, settings.limit, world)
    places = range(source.num_examples)
    if settings.limit is not None and settings.limit < source.num_examples:
        order = torch.randperm(source.num_examples, generator=torch.Generator().manual_seed(settings.seed))
        places = sorted(order[: settings.limit].tolist())
    return ((place, source.example(place)) for place in places[rank::world])


def label_tensor(labels: list, names: list[str] | None) -> torch.Tensor:
    """(n,) classes, -1 where there is none; or (n, C) of 0 and 1 where images have a list of classes."""
    if not any(isinstance(label, list) for label in labels):
        return torch.tensor([-1 if label is None else label for label in labels], dtype=torch.long)
    classes = len(names) if names else 1 + max((max(label, default=0) for label in labels if label), default=0)
    hot = torch.zeros(len(labels), classes, dtype=torch.uint8)
    for row, label in enumerate(labels):
        hot[row, label or []] = 1
    return hot


def write_features(path: Path, features: Features, places: torch.Tensor, key: dict[str, Any]) -> None:
    """One safetensors file, whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    names = torch.frombuffer(bytearray(json.dumps(features.ids).encode()), dtype=torch.uint8)
    tensors = {"features": features.features, "labels": features.labels, "places": places, "ids": names}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, {"key": canonical(key)})
    os.replace(part, path)


def read_features(path: Path) -> Features:
    """What `write_features` wrote."""
    with safe_open(path, "pt") as file:
        ids = json.loads(bytes(file.get_tensor("ids").numpy()))
        return Features(file.get_tensor("features"), file.get_tensor("labels"), ids)


def merge(parts: list[Path], path: Path, key: dict[str, Any]) -> None:
    """The shares of all processes, in the order of the data set, as one file; the shares go.

    Raises:
        ValueError: the share of a process is missing, or all are empty.
    """
    if missing := [part.name for part in parts if not part.is_file()]:
        raise ValueError(f"{', '.join(missing)} is missing in {path.parent}: processes need a cache folder they share")
    shares = []
    for part in parts:
        with safe_open(part, "pt") as file:
            shares.append((read_features(part), file.get_tensor("places")))
    shares = [(features, places) for features, places in shares if len(places)]
    if not shares:
        raise ValueError("there is no image to take features of")
    places = torch.cat([places for _features, places in shares])
    order = places.argsort()
    ids = [name for features, _places in shares for name in features.ids]
    whole = Features(
        torch.cat([features.features for features, _ in shares])[order],
        torch.cat(same_width([features.labels for features, _ in shares]))[order],
        [ids[index] for index in order.tolist()],
    )
    write_features(path, whole, places[order], key)
    for part in parts:
        part.unlink()


def same_width(labels: list[torch.Tensor]) -> list[torch.Tensor]:
    """Multi-hot labels of shares that saw different highest classes, made equally wide."""
    if all(label.ndim == 1 for label in labels):
        return labels
    width = max(label.shape[1] for label in labels)
    return [nn.functional.pad(label, (0, width - label.shape[1])) for label in labels]


def canonical(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)


def save_features(path: Path, features: Features, record: str) -> None:
    """Features, labels and ids for a user's own work, whole or absent.

    A .safetensors file has the tensors `features`, `labels` and, in its metadata, `ids` (JSON) and `record`; a
    .parquet file one row an image with the columns `id`, `label` and `features`.

    Args:
        record: JSON that says which model and data they are of.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    if path.suffix == ".parquet":
        rows = {"id": features.ids, "label": features.labels.tolist(), "features": list(features.features.numpy())}
        table = pyarrow.table(rows).replace_schema_metadata({"visreg": record})
        parquet.write_table(table, part)
    else:
        tensors = {"features": features.features.contiguous(), "labels": features.labels.contiguous()}
        save_file(tensors, part, {"ids": json.dumps(features.ids), "record": record})
    os.replace(part, path)
