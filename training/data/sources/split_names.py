# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Which split the name of a folder or a file stands for, in any case and by the usual synonyms."""

import os
import re

from ...run_folder import RunFolder
from ..decode import has_image_suffix
from .opened import NoSuchSplit
from .scan import is_folder


SPLIT_NAMES = {
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
    "train": ("train", "training"),
}
# What may stand beside it: train2017, training_set, test_images.
_FILLERS = frozenset(("set", "images", "image", "imgs", "img", "data", "dataset", "split", "seg"))


def split_of(name: str) -> str | None:
    """The split that a folder is named after: `Training`, `val2017`, `test_images`; None for any other name."""
    words = re.findall(r"[a-z]+", name.lower())
    splits = [split for split, names in SPLIT_NAMES.items() for word in words if word in names]
    rest = [word for word in words if not any(word in names for names in SPLIT_NAMES.values())]
    return splits[0] if len(splits) == 1 and _FILLERS.issuperset(rest) else None


def split_of_file(name: str) -> str | None:
    """The split that a file below a data folder is named after, by one of its folders or a word of its own name."""
    *folders, file = name.split(os.sep)
    for folder in folders:
        if split := split_of(folder):
            return split
    words = re.findall(r"[a-z]+", file.lower())
    found = {split for split, names in SPLIT_NAMES.items() if set(words) & set(names)}
    return found.pop() if len(found) == 1 else None


def split_folder(root: str, split: str) -> tuple[str | None, list[str]]:
    """The folder of a split right below a data folder, or below the only folder in it; and those of all splits.

    A folder whose name is the split's in lower case comes first, as in `datasets`.

    Returns:
        its path, None where there is none; the names of the folders that splits are named after.

    Raises:
        NoSuchSplit: two folders could be the one.
        OSError: the folder cannot be read.
    """
    folders = _folders(root)
    named = [name for name in folders if split_of(name)]
    if not named and len(folders) == 1 and not _has_files(root):
        inner = os.path.join(root, folders[0])
        if any(split_of(name) for name in _folders(inner)):
            return split_folder(inner, split)
    known = SPLIT_NAMES.get(split, (split,))
    exact = [name for name in known if name in folders]
    alike = [name for name in folders if split_of(name) == split or name.lower() == split.lower()]
    if not exact and len(alike) > 1:
        raise NoSuchSplit(f"split: {root} has {len(alike)} folders for the split {split!r}: {', '.join(alike)}.")
    chosen = (exact or alike or [None])[0]
    order = [name for names in SPLIT_NAMES.values() for name in names if name in named]
    return None if chosen is None else os.path.join(root, chosen), order + sorted(set(named) - set(order))


def beside_splits(root: str) -> list[str]:
    """The folders beside those of the splits, and the images: what a user may believe to be read."""
    with os.scandir(root) as entries:
        found = [(entry.name, is_folder(entry)) for entry in entries if not entry.name.startswith(".")]
    return sorted(
        f"{name}{os.sep}" if folder else name
        for name, folder in found
        if (split_of(name) is None if folder else has_image_suffix(name)) and not RunFolder(f"{root}/{name}").is_run()
    )


def _folders(root: str) -> list[str]:
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and is_folder(entry))


def _has_files(root: str) -> bool:
    with os.scandir(root) as entries:
        return any(not entry.name.startswith(".") and not is_folder(entry) for entry in entries)
