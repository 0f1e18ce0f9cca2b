# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A split that was opened, before its columns are chosen: what every kind of data is brought to."""

import os
from dataclasses import dataclass, field

from datasets import Dataset, IterableDataset


class NoSuchSplit(ValueError):
    """The data have no split of that name; the message lists those that they have."""


@dataclass(frozen=True)
class SplitRequest:
    """What `open_stream` was asked for; see there."""

    dataset: str
    config: str | None
    split: str
    streaming: bool | None
    revision: str | None
    max_bad_share: float
    image_column: str | None = None
    max_pixels: int | None = None


@dataclass
class OpenedSplit:
    """A split and its metadata.

    Attributes:
        data: the split; a `Dataset` becomes a `MapSource`, an `IterableDataset` a `StreamSource`.
        name: `digits`, a Hub id, or the file name of a local folder.
        revision: the Hub commit, None for local data.
        remote: whether reading may fail for the network's sake.
        num_rows: rows of a stream, where they were counted.
        files: (name, size) of the local files behind it.
        modified: when they were last changed, in ns.
        unreadable: records of files that were left out because they cannot be read.
        left_out: sentences about files that are there and not read.
        root: the folder of images that was opened, None for other data.
        tables: the folder that files have to lie below which local tables name as images, None for other data.
    """

    data: Dataset | IterableDataset
    name: str
    revision: str | None = None
    remote: bool = False
    num_rows: int | None = None
    files: list[tuple[str, int]] = field(default_factory=list)
    modified: list[int] = field(default_factory=list)
    unreadable: list[dict] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    root: str | None = None
    tables: str | None = None

    def add_files(self, files: list[tuple[str, str]]) -> "OpenedSplit":
        """Records the size and the time of (name, path) of each local file, for the fingerprints."""
        for name, path in files:
            stat = os.stat(path)
            self.files.append((name, stat.st_size))
            self.modified.append(stat.st_mtime_ns)
        return self


def refuse_options(kind: str, **options: str | None) -> None:
    """Raises ValueError for the first option that is given but means nothing for this kind of data."""
    for option, value in options.items():
        if value is not None:
            raise ValueError(f"{option}: {kind} has none, got {value!r}.")
