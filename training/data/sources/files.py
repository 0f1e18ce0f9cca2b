# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Parquet, arrow and tar (WebDataset) files, named by a glob or found in a folder as `datasets` does."""

import glob
import logging
import os
from pathlib import Path

import pyarrow.parquet as parquet
from datasets import DatasetBuilder
from pyarrow.dataset import ParquetFragmentScanOptions

from ...errors import one_line
from ..skips import UNREADABLE_FILE, skip_record
from .builder import open_builder, read_split
from .opened import NoSuchSplit, OpenedSplit, SplitRequest


logger = logging.getLogger(__name__)

BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}
_PARQUET_ROWS = 64  # rows of a local parquet file that are held decoded while it is streamed


def open_named_files(path: Path, request: SplitRequest) -> OpenedSplit:
    """A file, or those that a glob matches: all of them are the split.

    Raises:
        ValueError: there are none, or they are of another kind.
    """
    files = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else [str(path)]
    if not files:
        raise ValueError(f"dataset: no file matches {path}.")
    suffix = Path(files[0]).suffix.lower()
    if suffix not in BUILDERS:
        raise ValueError(f"dataset: {files[0]} is none of {', '.join(BUILDERS)}; for images name their folder.")
    kind = BUILDERS[suffix]
    builder = open_builder(kind, request.config, data_files={request.split: files})
    return _open_files(builder, kind, path.name, request)


def open_files_below(folder: Path, suffix: str, request: SplitRequest) -> OpenedSplit:
    """The split's files in a folder."""
    return _open_files(open_builder(str(folder), request.config), BUILDERS[suffix], folder.name, request)


def _open_files(builder: DatasetBuilder, kind: str, name: str, request: SplitRequest) -> OpenedSplit:
    files = [str(file) for file in _split_files(builder, request.split)]
    readable, unreadable, num_rows = files, [], None
    if kind == "parquet":
        readable, unreadable, num_rows = _check_parquet(files, request.max_bad_share)
    if unreadable:
        builder = open_builder(kind, data_files={request.split: readable})
    if kind == "parquet" and request.streaming:  # by default each open file keeps a whole row group, twice
        builder.config.batch_size = _PARQUET_ROWS
        builder.config.fragment_scan_options = ParquetFragmentScanOptions(
            pre_buffer=False, use_buffered_stream=True, buffer_size=1 << 20
        )
    data = read_split(builder, request.split, bool(request.streaming), name)
    opened = OpenedSplit(data, name, num_rows=num_rows, unreadable=unreadable)
    return opened.add_files([(Path(file).name, file) for file in readable])


def _split_files(builder: DatasetBuilder, split: str) -> list:
    available = builder.config.data_files or {}
    if split not in available:
        raise NoSuchSplit(f"split: there is no split {split!r}; the splits are {', '.join(map(str, available))}.")
    return available[split]


def _check_parquet(files: list[str], max_bad_share: float) -> tuple[list[str], list[dict], int]:
    """Readable files, a record for each whose footer is broken, and the rows of the readable ones."""
    readable, records, lost, rows = [], [], 0, 0
    for file in files:
        try:
            rows += parquet.read_metadata(file).num_rows
            readable.append(file)
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            records.append(skip_record(UNREADABLE_FILE, Path(file).name, file, one_line(error, 120)))
            lost += os.path.getsize(file)
    # By files too: of those that were never written nothing is left that could be weighed.
    share = max(lost / max(1, sum(os.path.getsize(file) for file in files)), len(records) / len(files))
    if not readable or share > max_bad_share:
        first = records[0]
        raise ValueError(
            f"dataset: {len(records)} of {len(files)} parquet files cannot be read "
            f"({first['path']}: {first['detail']}): {share:.1%} of them, "
            f"more than the allowed share {max_bad_share:g} (--max_bad_share allows more)."
        )
    if records:
        names = ", ".join(Path(record["path"]).name for record in records[:3])
        logger.warning(
            "%d of %d parquet files cannot be read and are left out: %s%s (%s)",
            len(records), len(files), names, ", ..." if len(records) > 3 else "", records[0]["detail"],
        )  # fmt: skip
    return readable, records, rows
