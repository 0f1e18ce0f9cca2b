# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Features of a whole source: extracted once, shared out over processes, kept as safetensors files.

    features = cached_features(backbone, source, FeatureOptions(layers=4), cache)

n images.
"""

import csv
import hashlib
import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow
import torch
from pyarrow import parquet
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from modeling_visreg.checkpoint import disk_errors

from ..backbones import Backbone
from ..bounded import parse_json
from ..data import Source
from ..data.decode import MAX_PIXELS
from ..distributed import all_gather_object, process_state, raise_on_all_ranks
from ..errors import one_line
from ..progress import tracked
from ..run_folder import Json, atomic_file
from .features import Features, extract, readable, same_columns
from .options import FeatureOptions
from .preprocessing import EvaluationTransform, check_room, transform_for


logger = logging.getLogger(__name__)

_FORMAT = 5  # of the cached files


class FeatureCache:
    """A folder of features, one file for each model, data and transform. Files are whole or absent.

    Args:
        folder: None for features/ in `VISREG_CACHE`, or in visreg/ of the user's cache folder.
    """

    def __init__(self, folder: str | os.PathLike | None = None):
        self.folder = Path(folder) if folder else default_cache()

    def path(self, key: Json) -> Path:
        return self.folder / f"{hashlib.sha256(_canonical(key).encode()).hexdigest()[:32]}.safetensors"


def default_cache() -> Path:
    """`VISREG_CACHE`, or visreg/ in the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("VISREG_CACHE") or Path(root) / "visreg") / "features"


def feature_key(backbone: Backbone, source: Source, options: FeatureOptions, transform: EvaluationTransform) -> dict:
    """Everything that decides the values: weights, data, transform, options. The name of the model does not.

    The allowed share of unreadable images is among them: what a lax share let pass is no answer to a stricter one.
    """
    described = backbone.description()
    return {
        "format": _FORMAT,
        "weights": described["weights"],
        "architecture": described["architecture"],
        "class": described["class"],
        "data": source.content_fingerprint,
        "label_column": source.label_column,
        "max_bad_share": source.max_bad_share,
        "max_pixels": source.max_pixels or MAX_PIXELS,
        "transform": transform.description(),
        "settings": asdict(options),
    }


def cached_features(
    backbone: Backbone,
    source: Source,
    options: FeatureOptions | None = None,
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
    state, options, cache = process_state(), options or FeatureOptions(), cache or FeatureCache()
    transform = transform_for(backbone, options.image_size)
    key = feature_key(backbone, source, options, transform)
    path = cache.path(key)
    # Nobody looks for the file while another already writes it.
    if not all(all_gather_object(is_whole(path))):
        rank, world = state.process_index, state.num_processes
        parts = [path.with_suffix(f".{index}of{world}.part") for index in range(world)]
        with raise_on_all_ranks():
            known = [number for number in (source.num_examples, options.limit) if number]
            check_room(backbone, transform, batch_size, min(known, default=None))
            paths: dict[str, str] = {}
            images = readable(transform, source, options, rank, world, paths)
            total = min(source.num_examples or options.limit or 0, options.limit or source.num_examples or 0) // world
            what = f"features of {source.name}, {source.split}"
            images = tracked(images, total or None, what, shown=state.is_main_process)
            found, positions = extract(backbone, transform, images, options, batch_size, source.label_names)
            if not len(positions) and world == 1:
                raise ValueError(f"{source.name}, split {source.split}: there is no image to take features of")
            found = found._replace(paths=[paths[name] for name in found.ids])
            _write(parts[rank], found, positions, key)
        with raise_on_all_ranks():
            if state.is_main_process:
                _merge(parts, path, key)
    with raise_on_all_ranks():
        return _read(path)


def save_features(path: Path, features: Features, record: str) -> None:
    """Features, labels, ids and paths for a user's own work, whole or absent.

    A path is below the data folder, or what a table or a tar calls the image. A .safetensors file has the tensors
    `features`, `labels` and, in its metadata, `ids`, `paths` (JSON) and `record`; a .parquet file one row an image
    with the columns `id`, `path`, `label` and `features`; a .csv file the same with a column for each number, f0, f1,
    ..., and no record; a .npz file the arrays `features`, `labels`, `ids`, `paths` and `record`.

    Args:
        path: its suffix is one of `SAVED_AS`.
        record: JSON that says which model and data they are of.
    """
    paths = features.paths or [""] * len(features.ids)
    with atomic_file(path) as part:
        if path.suffix == ".parquet":
            rows = {"id": features.ids, "path": paths, "label": features.labels.tolist()}
            rows["features"] = list(features.features.numpy())
            table = pyarrow.table(rows).replace_schema_metadata({"visreg": record})
            parquet.write_table(table, part)
        elif path.suffix == ".csv":
            _write_csv(part, features)
        elif path.suffix == ".npz":
            arrays = {"features": features.features.numpy(), "labels": features.labels.numpy()}
            np.savez(part, **arrays, ids=np.array(features.ids), paths=np.array(paths), record=np.array(record))
        else:
            tensors = {"features": features.features.contiguous(), "labels": features.labels.contiguous()}
            with disk_errors(path):
                names = {"ids": json.dumps(features.ids), "paths": json.dumps(paths)}
                save_file(tensors, part, names | {"record": record})


def _write_csv(path: Path, features: Features) -> None:
    """Numbers to nine digits, which give a float32 back; several classes of an image with spaces between them."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "path", "label", *(f"f{column}" for column in range(features.features.shape[1]))])
        paths = features.paths or [""] * len(features.ids)
        columns = (features.ids, paths, features.labels, features.features.tolist())
        for name, file, label, row in zip(*columns, strict=True):
            writer.writerow([name, file, _written(label, features.classes), *(f"{value:.9g}" for value in row)])


def _written(label: torch.Tensor, classes: list[int] | None) -> int | str:
    """A label in a table: its number, or those of all of an image's."""
    if not label.ndim:
        return int(label)
    own = label.nonzero().flatten().tolist()
    return " ".join(str(classes[column] if classes else column) for column in own)


def _write(path: Path, features: Features, positions: torch.Tensor, key: Json) -> None:
    tensors = {"features": features.features, "labels": features.labels, "places": positions}
    for field, names in (("ids", features.ids), ("paths", features.paths)):
        tensors[field] = torch.frombuffer(bytearray(json.dumps(names).encode()), dtype=torch.uint8)
    tensors["digests"] = features.digests
    if features.classes is not None:
        tensors["classes"] = torch.tensor(features.classes)
    with atomic_file(path) as part, disk_errors(path):
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, {"key": _canonical(key)})


def is_whole(path: Path) -> bool:
    """Whether the features of a file can be read; one that was cut is named, and made anew."""
    if not path.is_file():
        return False
    try:
        _read(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        logger.warning("The cached features in %s cannot be read (%s): made anew", path, one_line(error, 200))
        return False
    return True


def _read(path: Path) -> Features:
    with safe_open(path, "pt") as file:
        ids, paths = (parse_json(bytes(file.get_tensor(name).numpy()).decode()) for name in ("ids", "paths"))
        features, labels, digests = (file.get_tensor(name) for name in ("features", "labels", "digests"))
        classes = file.get_tensor("classes").tolist() if "classes" in file.keys() else None  # noqa: SIM118
    if not len(ids) == len(paths) == len(features) == len(labels) == len(digests):
        raise ValueError(f"{len(ids)} images have {len(features)} rows of features and {len(labels)} labels")
    if classes is not None and labels.shape[1:] != (len(classes),):
        raise ValueError(f"{len(classes)} classes have labels of the shape {tuple(labels.shape)}")
    return Features(features, labels, ids, digests, paths, classes)


def _merge(parts: list[Path], path: Path, key: Json) -> None:
    """The shares of all processes, in the order of the data set, as one file; the shares go.

    Raises:
        ValueError: the share of a process is missing, or all are empty.
    """
    if missing := [part.name for part in parts if not part.is_file()]:
        raise ValueError(f"{', '.join(missing)} is missing in {path.parent}: processes need a cache folder they share")
    shares = []
    for part in parts:
        with safe_open(part, "pt") as file:
            shares.append((_read(part), file.get_tensor("places")))
    shares = [(features, positions) for features, positions in shares if len(positions)]
    if not shares:
        raise ValueError("there is no image to take features of")
    positions = torch.cat([positions for _features, positions in shares])
    order = positions.argsort()
    ids = [name for features, _positions in shares for name in features.ids]
    paths = [name for features, _positions in shares for name in features.paths or ()]
    parts_of = [features for features, _positions in shares]
    if any(features.labels.ndim == 2 for features in parts_of):
        parts_of = same_columns(parts_of)
    merged = Features(
        torch.cat([features.features for features in parts_of])[order],
        torch.cat([features.labels for features in parts_of])[order],
        [ids[index] for index in order.tolist()],
        torch.cat([features.digests for features, _ in shares])[order],
        [paths[index] for index in order.tolist()],
        parts_of[0].classes,
    )
    _write(path, merged, positions[order], key)
    for part in parts:
        part.unlink()


def _canonical(key: Json) -> str:
    return json.dumps(key, sort_keys=True)
