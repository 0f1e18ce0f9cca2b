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
from pathlib import Path

from datasets import Dataset

from ..decode import has_image_suffix
from ..subsets import Subset
from .digits import open_digits
from .files import BUILDERS, open_files_below, open_named_files
from .hub import open_hub
from .image_folder import open_image_folder
from .map_source import map_source
from .opened import OpenedSplit, SplitRequest, refuse_options
from .saved import is_saved, open_saved
from .source import Source
from .stream_source import as_stream, stream_source


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
        max_bad_share: largest share (by number or by size) of local parquet files that may be unreadable.

    Returns:
        `MapSource` or `StreamSource`.

    Raises:
        NoSuchSplit: a ValueError; the data have no such split.
        ValueError: one line: what is missing, and what there is instead.
    """
    request = SplitRequest(os.fspath(dataset), dataset_config, split, streaming, revision, max_bad_share)
    opened, subset = _open(request), subset or Subset()
    if streaming and isinstance(opened.data, Dataset):
        opened = as_stream(opened)
    make = map_source if isinstance(opened.data, Dataset) else stream_source
    return make(opened, request, subset, image_column, label_column)


def _open(request: SplitRequest) -> OpenedSplit:
    name, path = request.dataset, Path(request.dataset).expanduser()
    if name == "digits":
        refuse_options("the embedded digits", dataset_config=request.config, revision=request.revision)
        return open_digits(request.split)
    if not glob.has_magic(name) and not path.exists():
        return open_hub(request)
    refuse_options("local data", revision=request.revision)
    if glob.has_magic(str(path)) or path.is_file():
        return open_named_files(path, request)
    if is_saved(path):
        return open_saved(path, request.split)
    suffix = _first_suffix(path)
    if suffix is None:
        raise ValueError(f"dataset: {path} holds no images and no parquet, arrow or tar files.")
    if suffix in BUILDERS:
        return open_files_below(path, suffix, request)
    refuse_options("a folder of images", dataset_config=request.config)
    return open_image_folder(path, request.split)


def _first_suffix(folder: Path) -> str | None:
    """The suffix of the first image, parquet, arrow or tar file below a folder."""
    for _, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            suffix = os.path.splitext(name)[1].lower()
            if suffix in BUILDERS or has_image_suffix(name):
                return suffix
    return None
