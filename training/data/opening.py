# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`open_stream`: one flag for every kind of image data, checked before anything starts.

open_stream("digits")                                   embedded
open_stream("uoft-cs/cifar10", split="train")           Hub, streamed, pinned to a commit
open_stream("photos/")                                  folder of images, with class folders or without
open_stream("shards/*.tar"), open_stream("data/")       WebDataset, parquet, arrow: globs or folders
open_stream("saved/")                                   what Dataset.save_to_disk wrote
"""

import glob
import os
import re
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Image,
    IterableDataset,
    load_dataset_builder,
    load_from_disk,
)
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
from pyarrow.dataset import ParquetFragmentScanOptions

from ..errors import one_line
from ..retry import http_status, is_transient, is_unreachable, with_retries
from .columns import Columns, find_columns
from .digits import load_digits_dataset
from .skips import UNREADABLE_FILE, skip_record
from .source import MapSource, NoSuchSplit, Source, StreamSource
from .subsets import Subset


_BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}
_IMAGE_SUFFIXES = {
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".gif",
    ".bmp",
    ".tif",
    ".tiff",
    ".ppm",
    ".jp2",
    ".avif",
    ".tga",
    ".ico",
}
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[\w.-]+)?$")
_SPLIT_FOLDERS = {
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
    "train": ("train", "training"),
}
_PARQUET_ROWS = 64  # rows of a local parquet file that are held decoded while it is streamed
_FOLDER_SHARD = 256  # images a shard, where a map-style data set is streamed


def open_stream(
    dataset: str | os.PathLike,
    *,
    dataset_config: str | None = None,
    split: str = "train",
    streaming: bool | None = None,
    revision: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    subset: Subset | None = None,
    max_bad_share: float = 0.01,
) -> Source:
    """Opens a set of images.

    Args:
        dataset: `digits`, a Hub id, a local folder or file, or a glob of parquet, arrow or tar files.
        dataset_config: name of the Hub data set's configuration.
        split: split to read. A local folder may have a folder for each.
        streaming: True reads shards in sequence without storing them; False makes every image reachable at random.
            None: True for a Hub id, False for anything local.
        revision: Hub branch, tag or commit. What it stands for now is pinned, and recorded.
        image_column: None finds the column by its type.
        label_column: None finds it by its type; no labels are needed.
        subset: a restriction to part of the images.
        max_bad_share: largest share (by size) of local parquet files that may be unreadable.

    Returns:
        `MapSource` or `StreamSource`.

    Raises:
        NoSuchSplit: the data set has other splits.
        ValueError: one line: what is missing, and what there is instead.
    """
    name, subset = os.fspath(dataset), subset or Subset()
    if name == "digits":
        _refuse("the embedded digits", dataset_config=dataset_config, revision=revision)
        data, facts = load_digits_dataset(split), {"name": "digits"}
    else:
        data, facts = _open(name, dataset_config, split, streaming, revision, max_bad_share)
    if streaming and isinstance(data, Dataset):
        facts["rows"] = len(data)
        data = data.to_iterable_dataset(num_shards=max(1, len(data) // _FOLDER_SHARD))
        facts["remote"] = False
    facts |= {"split": split, "config": dataset_config, "subset": subset}
    if isinstance(data, Dataset):
        return _map_source(data, find_columns(data.features, image_column, label_column), facts)
    return _stream_source(data, image_column, label_column, facts)


def _open(name, config, split, streaming, revision, max_bad_share) -> tuple[Dataset | IterableDataset, dict]:
    """The split and what is known about it (fields of `Source`)."""
    if glob.has_magic(name) or Path(name).expanduser().exists():
        _refuse("local data", revision=revision)
        return _open_local(Path(name).expanduser(), config, split, bool(streaming), max_bad_share)
    if not _HUB_ID.match(name) or name.startswith("."):
        raise ValueError(f"dataset: there is no folder or file {name!r}, and it is no Hub id (owner/name) either.")
    return _open_hub(name, config, split, streaming is not False, revision)


def _refuse(what: str, **options) -> None:
    for option, value in options.items():
        if value is not None:
            raise ValueError(f"{option}: {what} has none, got {value!r}.")


# --- local data
# ---------------------------------------------------------------------------------------------------------------


def _open_local(path: Path, config, split, streaming, max_bad_share) -> tuple[Dataset | IterableDataset, dict]:
    if glob.has_magic(str(path)) or path.is_file():
        files = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else [str(path)]
        if not files:
            raise ValueError(f"dataset: no file matches {path}.")
        suffix = Path(files[0]).suffix.lower()
        if suffix not in _BUILDERS:
            raise ValueError(f"dataset: {files[0]} is none of {', '.join(_BUILDERS)}; for images name their folder.")
        return _open_files(_BUILDERS[suffix], {split: files}, path.name, None, config, split, streaming, max_bad_share)
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        return _open_saved(path, split)
    suffix = _first_suffix(path)
    if suffix in _BUILDERS:
        return _open_files(_BUILDERS[suffix], None, path.name, path, config, split, streaming, max_bad_share)
    if suffix is None:
        raise ValueError(f"dataset: {path} holds no images and no parquet, arrow or tar files.")
    _refuse("a folder of images", dataset_config=config)
    return _open_image_folder(path, split)


def _first_suffix(folder: Path) -> str | None:
    """The suffix of the first image, parquet, arrow or tar file below a folder."""
    for _, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            suffix = os.path.splitext(name)[1].lower()
            if suffix in _BUILDERS or suffix in _IMAGE_SUFFIXES:
                return suffix
    return None


def _open_files(kind, data_files, name, folder, config, split, streaming, max_bad_share):
    """Parquet, arrow or tar files, given by name or found in a folder as `datasets` does."""
    path = str(folder) if folder is not None else kind
    options = {"data_files": data_files} if data_files else {}
    builder = _builder(path, config, None, options)
    files = [str(file) for file in _split_files(builder, split)]
    readable, unreadable, rows = files, [], None
    if kind == "parquet":
        readable, unreadable, rows = _check_parquet(files, max_bad_share)
    if unreadable:
        builder = _builder(kind, None, None, {"data_files": {split: readable}})
    if kind == "parquet" and streaming:  # by default each open file keeps a whole row group, twice
        builder.config.batch_size = _PARQUET_ROWS
        builder.config.fragment_scan_options = ParquetFragmentScanOptions(
            pre_buffer=False, use_buffered_stream=True, buffer_size=1 << 20
        )
    facts = {
        "name": name,
        "unreadable": unreadable,
        "rows": rows,
    } | _files_facts([(Path(file).name, file) for file in readable])
    return _read_split(builder, split, streaming, name), facts | {"remote": False}


def _split_files(builder, split: str) -> list:
    available = builder.config.data_files or {}
    if split not in available:
        raise NoSuchSplit(f"split: there is no split {split!r}; the splits are {', '.join(map(str, available))}.")
    return available[split]


def _check_parquet(files: list[str], max_bad_share: float) -> tuple[list[str], list[dict], int]:
    """Readable files, a record for each whose footer is broken, and the rows of the readable ones."""
    readable, records, lost, rows = [], [], 0, 0
    for file in files:
        try:
            rows += parquet.read_metadata(file).num_rows
            readable.append(file)
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            records.append(skip_record(UNREADABLE_FILE, Path(file).name, file, one_line(error, 120)))
            lost += os.path.getsize(file)
    share = lost / max(1, sum(os.path.getsize(file) for file in files))
    if not readable or share > max_bad_share:
        first = records[0]
        raise ValueError(
            f"dataset: {len(records)} of {len(files)} parquet files cannot be read "
            f"({first['path']}: {first['detail']}): {share:.1%} of the data, "
            f"more than the allowed share {max_bad_share:g} (max_bad_share)."
        )
    return readable, records, rows


def _open_saved(path: Path, split: str) -> tuple[Dataset, dict]:
    saved = load_from_disk(str(path))
    if isinstance(saved, DatasetDict):
        if split not in saved:
            raise NoSuchSplit(f"split: {path} has no split {split!r}; the splits are {', '.join(saved)}.")
        saved = saved[split]
    elif saved.split is not None and str(saved.split) != split:
        raise NoSuchSplit(f"split: {path} was saved from the split {saved.split}, not {split!r}.")
    files = [(Path(file["filename"]).name, file["filename"]) for file in saved.cache_files]
    return saved, {"name": path.name} | _files_facts(files)


def _files_facts(files: list[tuple[str, str]]) -> dict:
    """What fingerprints need of (name, path) of each local file."""
    stats = [(name, os.stat(path)) for name, path in files]
    return {
        "files": [(name, stat.st_size) for name, stat in stats],
        "modified": [stat.st_mtime_ns for _, stat in stats],
    }


def _open_image_folder(root: Path, split: str) -> tuple[Dataset, dict]:
    """Images below `root` (or its folder for the split); the folders just below are the classes, if no image lies
    beside them.
    """
    folder = _split_folder(root, split)
    named = []
    for where, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if os.path.splitext(name)[1].lower() in _IMAGE_SUFFIXES and not name.startswith("."):
                path = os.path.join(where, name)
                named.append((os.path.relpath(path, folder), path))
    if not named:
        raise ValueError(f"dataset: {folder} holds no images.")
    facts = {"name": root.name} | _files_facts(named)
    parts = [Path(name).parts for name, _ in named]
    images = [{"bytes": None, "path": path} for _, path in named]
    if any(len(part) == 1 for part in parts):
        features = Features({"image": Image(decode=False)})
        return Dataset.from_dict({"image": images}, features=features), facts
    names = sorted({part[0] for part in parts})
    number = {name: index for index, name in enumerate(names)}
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=names)})
    columns = {"image": images, "label": [number[part[0]] for part in parts]}
    return Dataset.from_dict(columns, features=features), facts


def _split_folder(root: Path, split: str) -> Path:
    for name in _SPLIT_FOLDERS.get(split, (split,)):
        if (root / name).is_dir():
            return root / name
    others = [name for names in _SPLIT_FOLDERS.values() for name in names if (root / name).is_dir()]
    if others or split != "train":
        have = (
            f"the folders for splits are {', '.join(others)}"
            if others
            else "it has no folders for splits, so all is train"
        )
        raise NoSuchSplit(f"split: {root} has no folder for the split {split!r}; {have}.")
    return root


# --- the Hub
# ------------------------------------------------------------------------------------------------------------------


def _open_hub(name, config, split, streaming, revision) -> tuple[Dataset | IterableDataset, dict]:
    sha = _pinned_revision(name, revision)
    builder = _builder(name, config, sha, {})
    return _read_split(builder, split, streaming, name), {"name": name, "revision": sha, "remote": True}


def _pinned_revision(name: str, revision: str | None) -> str:
    """The commit that a branch, tag or None stands for now."""
    try:
        # The first that is asked of the Hub: without a network there is nothing to wait for.
        ask = partial(HfApi().dataset_info, name, revision=revision)
        return with_retries(ask, f"Looking up {name}", wait_for_network=False).sha
    except GatedRepoError as error:
        raise ValueError(_gated(name)) from error
    except RevisionNotFoundError as error:
        raise ValueError(f"revision: the data set {name} has no revision {revision!r} on the Hub.") from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"dataset: there is no data set {name!r} on the Hub "
            "(or it is private and you are not logged in: `hf auth login`), and no local folder of that name."
        ) from error
    except Exception as error:
        if is_unreachable(error):
            raise ValueError(
                f"dataset: the Hub cannot be reached for {name!r}: connect to the network (and unset HF_HUB_OFFLINE), "
                f"or give a local folder ({one_line(error, 300)})."
            ) from error
        raise ValueError(f"dataset: the Hub could not be asked for {name!r}: {one_line(error, 300)}") from error


def _gated(name: str) -> str:
    return f"dataset: {name} is gated: accept its conditions on its page on the Hub, then log in with `hf auth login`."


def _builder(path: str, config: str | None, revision: str | None, options: dict):
    try:
        return with_retries(
            lambda: load_dataset_builder(path, config, revision=revision, **options), f"Opening {path}"
        )
    except Exception as error:
        if isinstance(error, GatedRepoError) or "gated" in str(error):
            raise ValueError(_gated(path)) from error
        raise ValueError(f"dataset: {path} cannot be opened: {one_line(error, 300)}") from error


def _read_split(builder, split: str, streaming: bool, name: str) -> Dataset | IterableDataset:
    known = list(builder.info.splits or builder.config.data_files or [])
    if known and split not in known:
        raise NoSuchSplit(f"split: {name} has no split {split!r}; the splits are {', '.join(map(str, known))}.")
    try:
        if streaming:
            return with_retries(lambda: builder.as_streaming_dataset(split=split), f"Opening {name}")
        with_retries(builder.download_and_prepare, f"Downloading {name}")
        return builder.as_dataset(split=split)
    except Exception as error:
        if isinstance(error, GatedRepoError | DatasetNotFoundError) or http_status(error) in (401, 403):
            raise ValueError(_gated(name)) from error
        if is_transient(error) or isinstance(error, HfHubHTTPError):
            raise ValueError(f"dataset: the Hub does not hand out {name}: {one_line(error, 300)}") from error
        raise ValueError(f"dataset: {name} cannot be read: {one_line(error.__cause__ or error, 300)}") from error


# --- sources
# ------------------------------------------------------------------------------------------------------------------


def _map_source(data: Dataset, columns: Columns, facts: dict) -> MapSource:
    if len(data) == 0:
        raise ValueError(f"dataset: the split {facts['split']} of {facts['name']} is empty.")
    for name in ("remote", "rows"):
        facts.pop(name, None)
    data = data.cast_column(columns.image, Image(decode=False))
    label_values = None
    if columns.text_labels:
        names = sorted(set(data.unique(columns.label)) - {None})
        label_values = {name: number for number, name in enumerate(names)}
        columns = Columns(columns.image, columns.label, names)
    subset, rows = facts["subset"], np.arange(len(data))
    if subset:
        rows = subset.select(
            len(data), _labels_for(subset, data, columns, label_values), _paths_for(subset, data, columns)
        )
    data = data.select_columns([name for name in (columns.image, columns.label) if name])
    return MapSource(
        columns=columns, num_examples=len(rows), dataset=data, rows=rows, label_values=label_values, **facts
    )


def _labels_for(subset: Subset, data: Dataset, columns: Columns, values: dict | None) -> np.ndarray | None:
    if not subset.needs_labels:
        return None
    if columns.label is None:
        raise ValueError("subset: images_per_class and imbalance_factor need a label column, and there is none.")
    labels = data.with_format(None)[columns.label][:]
    if labels and isinstance(labels[0], list):
        raise ValueError(
            f"subset: the column {columns.label!r} holds several labels an image, so there are no classes to count."
        )
    return np.array([-1 if label is None else values[label] if values else label for label in labels])


def _paths_for(subset: Subset, data: Dataset, columns: Columns) -> list[str | None] | None:
    if subset.file_list is None:
        return None
    tables = data.select_columns([columns.image]).with_format("arrow").iter(batch_size=1000)
    return [path for table in tables for path in table.column(0).combine_chunks().field("path").to_pylist()]


def _stream_source(data: IterableDataset, image_column, label_column, facts: dict) -> StreamSource:
    subset = facts["subset"]
    if subset.needs_labels:
        raise ValueError(
            "subset: images_per_class and imbalance_factor have to count the classes first: set streaming to false."
        )
    if data.features is None:
        data = with_retries(data._resolve_features, "Reading the first image")
    columns = find_columns(data.features, image_column, label_column)
    if columns.text_labels:
        if label_column is not None:
            raise ValueError(
                f"label_column: {label_column!r} holds text, which a stream cannot number: set streaming to false."
            )
        columns = Columns(columns.image, None, None)
    data = data.select_columns([name for name in (columns.image, columns.label) if name])
    data = data.cast_column(columns.image, Image(decode=False))
    count = facts.pop("rows", None)
    if count is None and data.info.splits and facts["split"] in data.info.splits:
        count = data.info.splits[facts["split"]].num_examples
    if subset.file_list is not None or not count:
        count = None
    elif subset.fraction is not None:
        count = max(1, round(subset.fraction * count))
    return StreamSource(
        columns=columns,
        num_examples=count,
        num_shards=data.num_shards,
        dataset=data,
        listed=subset.listed_names(),
        **facts,
    )
