# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`MapSource`: any image by its number."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from datasets import Dataset, Image
from pyarrow import compute

from ...errors import BadDataError
from ...seeding import permutation
from ..decode import RawExample, downloaded_path, path_in_table
from ..subsets import Subset
from .columns import Columns, find_columns
from .opened import OpenedSplit, SplitRequest
from .source import Source, check_labels, common_fields


@dataclass(kw_only=True)
class MapSource(Source):
    """Any image by its number, 0 to num_examples - 1.

    Attributes:
        dataset: the whole split, images undecoded.
        rows: (num_examples,) the rows of `dataset` that the subset keeps.
        label_values: number of each text label, None if labels are numbers.
        remote: whether the data are of the Hub, and may not name files of this machine.
    """

    dataset: Dataset = field(repr=False)
    rows: np.ndarray = field(repr=False)
    label_values: dict[str, int] | None = None
    remote: bool = False

    is_map_style = True

    def example(self, index: int) -> RawExample:
        """The undecoded image number `index`."""
        row = int(self.rows[index])
        record = self.dataset[row]
        image = record[self.image_column] or {}
        label = record[self.label_column] if self.label_column else None
        if self.label_values is not None:
            label = self.label_values.get(label, -1)
        data, path = image.get("bytes"), image.get("path")
        if self.remote and data is None:
            path = downloaded_path(path)
        elif self.tables is not None and data is None:
            path = path_in_table(path, self.tables)
        return RawExample(data, path, label, str(row), (row,), self.max_pixels)

    def raw_examples(self, seed: int | None = None) -> Iterator[RawExample]:
        count = self.num_examples
        order = range(count) if seed is None else permutation(count, "sample", seed, 0).tolist()
        return (self.example(index) for index in order)

    def raw_examples_after(
        self, key: tuple[int, ...] | None, on_lost: Callable[[list[dict]], None]
    ) -> Iterator[RawExample]:
        start = 0 if key is None else int(np.searchsorted(self.rows, key[0], side="right"))  # rows ascend
        return (self.example(index) for index in range(start, self.num_examples))


def map_source(
    opened: OpenedSplit, request: SplitRequest, subset: Subset, image_column: str | None, label_column: str | None
) -> MapSource:
    """The source of a split whose rows are all reachable.

    Raises:
        ValueError: it is empty, a column is missing, or the subset leaves nothing.
    """
    data = opened.data
    columns = find_columns(data.features, image_column, label_column)
    if len(data) == 0:
        raise ValueError(f"dataset: the split {request.split} of {opened.name} is empty.")
    check_labels(opened, columns)
    data = data.cast_column(columns.image, Image(decode=False))
    if opened.tables is not None:
        _check_paths(data, columns.image, opened.tables)
    label_values = None
    if columns.text_labels:
        names = sorted(set(data.unique(columns.label)) - {None})
        label_values = {name: number for number, name in enumerate(names)}
        columns = Columns(columns.image, columns.label, names)
    rows = np.arange(len(data))
    if subset:
        labels = _labels(data, columns, label_values) if subset.needs_labels else None
        paths = _paths(data, columns) if subset.file_list is not None else None
        rows = subset.select(len(data), labels, paths)
    return MapSource(
        columns=columns,
        num_examples=len(rows),
        dataset=data.select_columns(columns.names),
        rows=rows,
        label_values=label_values,
        remote=opened.remote,
        **common_fields(opened, request, subset),
    )


def _check_paths(data: Dataset, column: str, folder: str) -> None:
    """Raises ValueError for the first folder outside of `folder` that a table names images of."""
    checked: set[str] = set()
    for chunk in data.data.column(column).chunks:
        named = compute.filter(chunk.field("path"), compute.is_null(chunk.field("bytes")))
        for path in named.to_pylist():
            if path and (parent := os.path.dirname(path)) not in checked:
                checked.add(parent)
                try:
                    path_in_table(path, folder)
                except BadDataError as error:
                    raise ValueError(str(error)) from error


def _labels(data: Dataset, columns: Columns, values: dict[str, int] | None) -> np.ndarray:
    """(n,) classes, -1 where there is none."""
    if columns.label is None:
        raise ValueError("subset: images_per_class and imbalance_factor need a label column, and there is none.")
    labels = data.with_format(None)[columns.label][:]
    if labels and isinstance(labels[0], list):
        raise ValueError(
            f"subset: the column {columns.label!r} holds several labels per image, so there are no classes to count."
        )
    return np.array([-1 if label is None else values[label] if values else label for label in labels])


def _paths(data: Dataset, columns: Columns) -> list[str | None]:
    tables = data.select_columns([columns.image]).with_format("arrow").iter(batch_size=1000)
    return [path for table in tables for path in table.column(0).combine_chunks().field("path").to_pylist()]
