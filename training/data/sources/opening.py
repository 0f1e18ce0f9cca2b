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
import logging
import os
from pathlib import Path

from datasets import Dataset

from ..decode import has_image_suffix
from ..formats import is_text, shown
from ..subsets import Subset
from .digits import open_digits
from .files import holds_images, largest_kind, open_files_below, open_named_files
from .hub import open_hub
from .image_folder import open_image_folder
from .map_source import map_source
from .opened import NoSuchSplit, OpenedSplit, SplitRequest, refuse_options
from .saved import is_saved, open_saved
from .scan import METADATA, Scan, in_short, scan
from .source import Source
from .split_names import beside_splits, split_folder
from .stream_source import as_stream, stream_source


logger = logging.getLogger(__name__)


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
    max_pixels: int | None = None,
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
        max_bad_share: largest share (by number or by size) of local parquet files that may be unreadable, and of the
            images of whoever reads them all.
        max_pixels: of an image, width x height: a larger JPEG is decoded reduced, others count as unreadable. None:
            `VISREG_MAX_PIXELS` of the environment, else 60 million.

    Returns:
        `MapSource` or `StreamSource`.

    Raises:
        NoSuchSplit: a ValueError; the data have no such split.
        ValueError: one line: what is missing, and what there is instead.
    """
    if max_pixels is not None and max_pixels < 1:
        raise ValueError(f"max_pixels must be above 0, not {max_pixels}")
    request = SplitRequest(
        os.fspath(dataset), dataset_config, split, streaming, revision, max_bad_share, image_column, max_pixels
    )
    opened, subset = _open(request), subset or Subset()
    for note in opened.left_out:
        logger.warning("%s, %s: %s", opened.name, split, note)
    if streaming and isinstance(opened.data, Dataset):
        opened = as_stream(opened)
    make = map_source if isinstance(opened.data, Dataset) else stream_source
    return make(opened, request, subset, image_column, label_column)


def _open(request: SplitRequest) -> OpenedSplit:
    name, path = request.dataset, Path(request.dataset).expanduser()
    if name == "digits":
        refuse_options("the embedded digits", dataset_config=request.config, revision=request.revision)
        return open_digits(request.split)
    if not is_text(name):
        raise ValueError(f"dataset: the path {shown(name)} is not UTF-8: rename the folder.")
    there = path.exists()
    if not there and not glob.has_magic(name):
        return open_hub(request)
    refuse_options("local data", revision=request.revision)
    if not there or path.is_file():
        return open_named_files(path, request)
    if is_saved(path):
        return open_saved(path, request.split)
    return _open_folder(path, request)


def _open_folder(path: Path, request: SplitRequest) -> OpenedSplit:
    """The kind of data that most of a folder's bytes are; what else lies there is said."""
    try:
        folder, splits = split_folder(str(path), request.split)
        found = scan(folder or str(path))
        kind = _kind_of(found, request.image_column)
        if folder is not None and kind != "images":
            found = scan(str(path))
            kind = _kind_of(found, request.image_column)
    except OSError as error:
        raise ValueError(f"dataset: {path} cannot be read: {error.strerror}.") from error
    if kind is None:
        others = "; ".join(found.left_out("images"))
        inside = f" ({others})" if others else ""
        raise ValueError(f"dataset: {folder or path} holds no images and no parquet, arrow or tar files{inside}.")
    if kind != "images":
        return open_files_below(path, found, kind, request)
    refuse_options("a folder of images", dataset_config=request.config)
    if folder is None and (splits or request.split != "train"):
        have = (
            f"the folders for splits are {', '.join(splits)}"
            if splits
            else "it has no folders for splits, so all is train"
        )
        raise NoSuchSplit(f"split: {path} has no folder for the split {request.split!r}; {have}.")
    opened = open_image_folder(folder or str(path), path.name, found, _tables(path, found))
    opened.root = str(path)
    if folder is not None and (beside := beside_splits(os.path.dirname(folder))):
        opened.left_out.append(f"beside the folders of the splits there are {in_short(beside)}: not read")
    return opened


def check_output(output: Path, *folders: str | os.PathLike | None) -> None:
    """Raises ValueError for a picture that is to be written into a folder of images: it would be one of them later."""
    place = output.expanduser().resolve()
    for folder in folders:
        root = None if folder is None else Path(folder).expanduser().resolve()
        if root is not None and root.is_dir() and place.is_relative_to(root) and has_image_suffix(place):
            raise ValueError(
                f"--output {output} lies in the data folder {folder}, where it would be read as an image."
            )


def _tables(path: Path, found: Scan) -> list[tuple[str, str]]:
    """(folder, path) of the metadata tables: of the data folder itself, then of the folders below it."""
    outer = [(str(path), str(path / name)) for name in METADATA if (path / name).is_file()]
    return outer + [(os.path.dirname(file), file) for _, file in found.metadata if (str(path), file) not in outer]


def _kind_of(found: Scan, image_column: str | None) -> str | None:
    """ "images" or a builder: the one with the most bytes of those that hold images; None where there is none."""
    kinds = dict(found.files)
    if found.images:
        kinds["images"] = found.images
    if len(kinds) > 1 and "parquet" in kinds and not holds_images(kinds["parquet"][0][1], image_column):
        del kinds["parquet"]
    return None if not kinds else largest_kind(kinds) if len(kinds) > 1 else next(iter(kinds))
