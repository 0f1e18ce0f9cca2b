# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""metadata.csv, metadata.jsonl and metadata.parquet beside images, as `datasets` writes and reads them.

A row names its image in the column `file_name`, relative to the table. Only images that the scan found are looked up,
so that a table cannot name any other file.
"""

import os
from typing import Any

import pyarrow
from datasets import ClassLabel, Value
from pyarrow import csv, json, parquet

from ...errors import one_line
from .columns import LABEL_NAMES
from .scan import in_short


_FILE_COLUMNS = ("file_name", "image_file_name")


def read_metadata(
    tables: list[tuple[str, str]], folder: str, images: list[str], notes: list[str]
) -> tuple[dict[str, list], dict[str, Any]]:
    """The columns of numbers and text of tables, in the order of some images.

    Args:
        tables: (folder that its names start from, path) of each; of two rows of an image the later table's counts.
        folder: of the images; a table may have rows about those of other splits too.
        images: paths.
        notes: gets sentences about rows and images that do not match, and about tables that cannot be used.

    Returns:
        columns, None where an image has no row; their features. Text in a column of labels is numbered.
    """
    rows: dict[str, dict] = {}
    for base, path in tables:
        try:
            table = _read(path)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise ValueError(f"dataset: {path} cannot be read: {one_line(error, 200)}") from error
        column = next((name for name in _FILE_COLUMNS if name in table.column_names), None)
        if column is None:
            notes.append(f"{path} has no column file_name, so it is not read")
            continue
        for row in table.to_pylist():
            rows[os.path.normpath(os.path.join(base, str(row.pop(column))))] = row
    if not rows:
        return {}, {}
    found = [rows.get(os.path.normpath(path)) for path in images]
    _say_what_is_missing(rows, folder, images, found, notes)
    names = sorted({name for row in rows.values() for name in row} - {"image"})
    columns = {name: [None if row is None else row.get(name) for row in found] for name in names}
    typed = {name: _feature(name, values) for name, values in columns.items()}
    features = {name: feature for name, feature in typed.items() if feature is not None}
    label = next((name for name in LABEL_NAMES if name in features), None)
    if label is not None and label != "label" and "label" not in features:
        columns["label"], features["label"] = columns.pop(label), features.pop(label)
    return {name: columns[name] for name in features}, features


def _read(path: str) -> pyarrow.Table:
    if path.endswith(".csv"):
        return csv.read_csv(path)
    return json.read_json(path) if path.endswith(".jsonl") else parquet.read_table(path)


def _say_what_is_missing(rows: dict, folder: str, images: list[str], found: list, notes: list[str]) -> None:
    without = [os.path.basename(path) for path, row in zip(images, found, strict=True) if row is None]
    if without:
        notes.append(f"{len(without)} images have no row in the metadata: {in_short(without)}")
    inside = os.path.join(os.path.normpath(folder), "")
    gone = sorted(name for name in rows.keys() - set(map(os.path.normpath, images)) if name.startswith(inside))
    if gone:
        notes.append(f"{len(gone)} rows of the metadata name no image: {in_short(list(map(os.path.basename, gone)))}")


def _feature(name: str, values: list) -> Any:
    """The type of a column; None for what is neither whole numbers nor text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return Value("int64")
    if kinds != {str}:
        return None
    return ClassLabel(names=sorted(set(values) - {None})) if name in LABEL_NAMES else Value("string")
