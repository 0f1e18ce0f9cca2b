# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""

from pathlib import Path

from datasets import Dataset, DatasetDict, load_from_disk

from ...bounded import read_text
from ...errors import one_line
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
        ValueError: it cannot be read.
    """
    saved = _load(folder)
    if isinstance(saved, DatasetDict):
        if split not in saved:
            raise NoSuchSplit(f"split: {folder} has no split {split!r}; the splits are {', '.join(saved)}.")
        saved = saved[split]
    elif saved.split is not None and str(saved.split) != split:
        raise NoSuchSplit(f"split: {folder} was saved from the split {saved.split}, not {split!r}.")
    files = [(Path(file["filename"]).name, file["filename"]) for file in saved.cache_files]
    return OpenedSplit(saved, folder.name, tables=str(folder)).add_files(files)


def _load(folder: Path) -> Dataset | DatasetDict:
    for path in folder.rglob("*.*"):
        if path.suffix == ".json":
            read_text(path)  # within bounds
        elif not path.is_file():
            raise ValueError(f"dataset: {path} is no regular file")
    try:
        saved = load_from_disk(str(folder))
        for split in saved.values() if isinstance(saved, DatasetDict) else [saved]:
            split.data.validate(full=True)  # of binary columns it reads where rows begin, and not what is in them
    except MemoryError:
        raise
    except Exception as error:  # damaged metadata and tables make it fail in any way there is
        raise ValueError(f"dataset: {folder} cannot be read: {one_line(error, 300)}") from error
    return saved
