# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Parquet, arrow and tar (WebDataset) files, named by a glob or found in a folder as `datasets` does."""

import glob
import logging
import os
from pathlib import Path

import pyarrow.parquet as parquet
from datasets import DatasetBuilder, Features
from pyarrow.dataset import ParquetFragmentScanOptions

from ...errors import one_line
from ..skips import UNREADABLE_FILE, skip_record
from .builder import open_builder, read_split
from .columns import find_columns
from .opened import NoSuchSplit, OpenedSplit, SplitRequest
from .scan import BUILDERS, Scan, builder_of, in_short
from .split_names import split_of_file
from .tars import as_tars, refuse_several


logger = logging.getLogger(__name__)

_PARQUET_ROWS = 64  # rows of a local parquet file that are held decoded while it is streamed


def open_named_files(path: Path, request: SplitRequest) -> OpenedSplit:
    """A file, or those that a glob matches: all of them are the split.

    Raises:
        ValueError: there are none, or they are of another kind.
    """
    files = [str(path)] if path.exists() else sorted(glob.glob(str(path), recursive=True))
    if not files:
        raise ValueError(f"dataset: no file matches {path}.")
    found = Scan()
    for file in filter(os.path.isfile, files):
        if kind := builder_of(file):
            found.files.setdefault(kind, []).append((Path(file).name, file))
        else:
            found.others[Path(file).suffix.lower()] += 1
    if not found.files:
        raise ValueError(
            f"dataset: {files[0]} is none of {', '.join(BUILDERS)}; for images name their folder, and unpack archives "
            "of other kinds."
        )
    kind = largest_kind(found.files)
    builder = open_files(kind, {request.split: [file for _, file in found.files[kind]]}, request.config)
    folder = os.path.commonpath([os.path.dirname(os.path.abspath(file)) for file in files])
    return _open_files(builder, kind, path.name, folder, request, found.left_out(kind))


def open_files_below(folder: Path, found: Scan, kind: str, request: SplitRequest) -> OpenedSplit:
    """The split's files in a folder: as `datasets` finds them, if it finds all of them and tells their splits."""
    files = found.files[kind]
    builder = None
    if not glob.has_magic(str(folder)):
        try:
            builder = open_builder(str(folder), request.config)
        except ValueError:
            if request.config is not None:
                raise
    groups, notes = split_groups(files), found.left_out(kind)
    declared = request.config is not None or (builder is not None and builder.config.name != "default")
    if builder is None or not (declared or _finds_all(builder, files, len(groups))):
        known = {name for names in groups.values() for name in names}
        if lost := [name for name, file in files if file not in known]:
            notes.append(f"{len(lost)} files of no split left out: {in_short(lost)}")
        builder = open_files(kind, groups, request.config)
    return _open_files(builder, kind, folder.name, str(folder), request, notes)


def _finds_all(builder: DatasetBuilder, files: list[tuple[str, str]], splits: int) -> bool:
    """Whether a builder has exactly these files, and no fewer splits than their names say."""
    data_files = builder.config.data_files or {}
    have = {os.path.realpath(file) for names in data_files.values() for file in names}
    return have == {os.path.realpath(file) for _, file in files} and len(data_files) >= splits


def split_groups(files: list[tuple[str, str]]) -> dict[str, list[str]]:
    """Files by the split that their names say; those that say none are of the training split, if no other is."""
    groups: dict[str, list[str]] = {}
    rest = []
    for name, file in files:
        if split := split_of_file(name):
            groups.setdefault(split, []).append(file)
        else:
            rest.append(file)
    if rest and "train" not in groups:
        groups["train"] = rest
    return groups


def largest_kind(files: dict[str, list[tuple[str, str]]]) -> str:
    """The kind whose files have the most bytes."""
    return max(files, key=lambda kind: sum(os.path.getsize(file) for _, file in files[kind]))


def open_files(kind: str, groups: dict[str, list[str]], config: str | None) -> DatasetBuilder:
    """A builder of files that are named as they are: a bracket in a name is no pattern."""
    data_files = {split: [glob.escape(os.path.abspath(file)) for file in files] for split, files in groups.items()}
    return open_builder(kind, config, data_files=data_files)


def _open_files(
    builder: DatasetBuilder, kind: str, name: str, folder: str, request: SplitRequest, notes: list[str]
) -> OpenedSplit:
    """A split of files in `folder`, below which tables may name others as images; a tar holds all of its own."""
    files = [str(file) for file in _split_files(builder, request.split)]
    readable, unreadable, num_rows = files, [], None
    if kind == "parquet":
        files = without_features(files, notes)
        readable, unreadable, num_rows = _check_parquet(files, request.max_bad_share)
    if kind == "parquet" and len(readable) < len(_split_files(builder, request.split)):
        builder = open_files(kind, {request.split: readable}, None)
    builder = as_tars(builder)
    if kind == "parquet" and request.streaming:  # by default each open file keeps a whole row group, twice
        builder.config.batch_size = _PARQUET_ROWS
        builder.config.fragment_scan_options = ParquetFragmentScanOptions(
            pre_buffer=False, use_buffered_stream=True, buffer_size=1 << 20
        )
    data = read_split(builder, request.split, bool(request.streaming), name)
    refuse_several(builder, name, request)
    opened = OpenedSplit(data, name, num_rows=num_rows, unreadable=unreadable, left_out=notes)
    opened.tables = None if kind == "webdataset" else folder
    return opened.add_files([(Path(file).name, file) for file in readable])


def without_features(files: list[str], notes: list[str]) -> list[str]:
    """Without the files that `visreg features` wrote, unless there are no others."""
    own = [file for file in files if _wrote_features(file)]
    if own and len(own) < len(files):
        notes.append(f"{len(own)} files of features left out: {in_short(list(map(os.path.basename, own)))}")
        return [file for file in files if file not in own]
    return files


def _wrote_features(file: str) -> bool:
    try:
        return b"visreg" in (parquet.read_metadata(file).metadata or {})
    except (OSError, ValueError):
        return False


def holds_images(file: str, column: str | None) -> bool:
    """Whether a parquet file may be a table of images, by its columns."""
    try:
        features = Features.from_arrow_schema(parquet.read_schema(file))
        find_columns(features, column, None)
    except (OSError, ValueError):
        return False
    return True


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
