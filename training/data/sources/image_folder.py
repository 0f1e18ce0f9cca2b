# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Folders of images. Labels come from a metadata table, or from the folders just below the root.

A few images beside class folders have no class; where they are many, the folders are no classes.
"""

import logging
import os

from datasets import ClassLabel, Dataset, Features, Image

from .metadata import read_metadata
from .opened import OpenedSplit
from .scan import Scan, in_short


logger = logging.getLogger(__name__)

_STRAY_SHARE = 0.1  # of the images, that may lie beside class folders


def open_image_folder(folder: str, name: str, found: Scan, tables: list[tuple[str, str]]) -> OpenedSplit:
    """The images of a scan.

    Args:
        folder: of the split.
        name: of the data set.
        found: the scan of the folder.
        tables: (folder that its names start from, path) of the metadata tables.
    """
    notes = found.left_out("images")
    columns, features = read_metadata(tables, folder, [path for _, path in found.images], notes)
    if "label" not in columns:
        labels = _class_folders([name for name, _ in found.images], notes)
        if labels is not None:
            columns["label"], features["label"] = labels
    images = [{"bytes": None, "path": path} for _, path in found.images]
    data = Dataset.from_dict(
        {"image": images, **columns}, features=Features({"image": Image(decode=False), **features})
    )
    opened = OpenedSplit(data, name, unreadable=found.closed, left_out=notes)
    return opened.add_files(found.images)


def _class_folders(names: list[str], notes: list[str]) -> tuple[list[int], ClassLabel] | None:
    """The class of each image, -1 for none, by the folder below the root that it lies in."""
    folders = [name.split(os.sep, 1)[0] if os.sep in name else None for name in names]
    stray = [name for name, folder in zip(names, folders, strict=True) if folder is None]
    classes = sorted({folder for folder in folders if folder is not None})
    if not classes:
        return None
    beside = f"{len(stray)} image{'s' if len(stray) > 1 else ''} beside the class folders: {in_short(stray)}"
    if len(stray) > max(1, _STRAY_SHARE * len(names)):
        notes.append(f"no labels, as there are {beside}")
        return None
    if stray:
        notes.append(f"no label for {beside}")
    number: dict[str | None, int] = {name: index for index, name in enumerate(classes)} | {None: -1}
    return [number[folder] for folder in folders], ClassLabel(names=classes)
