# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Folders of images; the folders just below the root are the classes, if no image lies beside them."""

import os
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, Image

from ..decode import has_image_suffix
from .opened import NoSuchSplit, OpenedSplit


_SPLIT_FOLDERS = {
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
    "train": ("train", "training"),
}


def open_image_folder(root: Path, split: str) -> OpenedSplit:
    """Images below `root`, or below its folder for the split.

    Raises:
        NoSuchSplit: it has no folder for the split.
        ValueError: it holds no images.
    """
    folder = _split_folder(root, split)
    files = _image_files(folder)
    if not files:
        raise ValueError(f"dataset: {folder} holds no images.")
    return OpenedSplit(_dataset(files), root.name).add_files(files)


def _split_folder(root: Path, split: str) -> Path:
    for name in _SPLIT_FOLDERS.get(split, (split,)):
        if (root / name).is_dir():
            return root / name
    others = [name for names in _SPLIT_FOLDERS.values() for name in names if (root / name).is_dir()]
    if others or split != "train":
        have = "it has no folders for splits, so all is train"
        if others:
            have = f"the folders for splits are {', '.join(others)}"
        raise NoSuchSplit(f"split: {root} has no folder for the split {split!r}; {have}.")
    return root


def _image_files(folder: Path) -> list[tuple[str, str]]:
    """(path below the folder, path) of every image that is not hidden, in order."""
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if has_image_suffix(name) and not name.startswith("."):
                path = os.path.join(parent, name)
                found.append((os.path.relpath(path, folder), path))
    return found


def _dataset(files: list[tuple[str, str]]) -> Dataset:
    """The images by path, with a label where they lie in class folders."""
    images = [{"bytes": None, "path": path} for _, path in files]
    parts = [Path(name).parts for name, _ in files]
    if any(len(part) == 1 for part in parts):
        return Dataset.from_dict({"image": images}, features=Features({"image": Image(decode=False)}))
    names = sorted({part[0] for part in parts})
    number = {name: index for index, name in enumerate(names)}
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=names)})
    return Dataset.from_dict({"image": images, "label": [number[part[0]] for part in parts]}, features=features)
