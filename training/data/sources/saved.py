# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""

from pathlib import Path

from datasets import DatasetDict, load_from_disk

from .opened import NoSuchSplit, OpenedSplit


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").exists() or all(
        (folder / name).exists() for name in ("state.json", "dataset_info.json")
    )


def open_saved(folder: Path, split: str) -> OpenedSplit:
    """A split of a saved data set.

    Raises:
        NoSuchSplit: it was saved without it.
    """
    saved = load_from_disk(str(folder))
    if isinstance(saved, DatasetDict):
        if split not in saved:
            raise NoSuchSplit(f"split: {folder} has no split {split!r}; the splits are {', '.join(saved)}.")
        saved = saved[split]
    elif saved.split is not None and str(saved.split) != split:
        raise NoSuchSplit(f"split: {folder} was saved from the split {saved.split}, not {split!r}.")
    files = [(Path(file["filename"]).name, file["filename"]) for file in saved.cache_files]
    return OpenedSplit(saved, folder.name).add_files(files)
