# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Reads one shard of a stream from any row on, through every fault that passes.

A row group is one of a parquet file, and all of a shard of any other format: a position (row group, row) is reached
by reading one row group at most.
"""

import logging
from collections.abc import Iterator
from itertools import islice

from datasets import IterableDataset

from ..errors import BadDataError, one_line
from ..retry import STREAM_PATIENCE, Patience, bound_waits, http_status, is_transient, with_retries
from .decode import RawExample, downloaded_path, path_in_table
from .skips import UNREADABLE_FILE, skip_record


logger = logging.getLogger(__name__)

_READ_ROWS = 32  # rows that are converted from Arrow at a time


class StreamLostError(RuntimeError):
    """A stream that did not come back within the patience, or that the server refuses."""


class ShardCursor:
    """A position in one shard of a stream.

    Args:
        dataset: the stream, undecoded.
        shard: number of the shard in it.
        image_column: column with the images.
        label_column: column with the labels, or None.
        remote: whether the data come over a network; local files are not tried again for minutes.
        row_group, row: where to start.
        max_pixels: of an image, None for the default.
        tables: of `OpenedSplit`.

    Attributes:
        row_group, row: the next image's position, which is all that is needed to read on.
        lost: records of row groups that cannot be read, to be emptied by the caller.
    """

    def __init__(
        self,
        dataset: IterableDataset,
        shard: int,
        image_column: str,
        label_column: str | None,
        remote: bool,
        row_group: int = 0,
        row: int = 0,
        max_pixels: int | None = None,
        tables: str | None = None,
    ):
        bound_waits()  # a worker that was spawned has not heard of it
        self._dataset, self._shard = dataset, shard
        self._image_column, self._label_column = image_column, label_column
        self._remote, self._max_pixels, self._tables = remote, max_pixels, tables
        self.row_group, self.row = row_group, row
        self.lost: list[dict] = []
        self._row_groups: IterableDataset | None = None
        self._rows: Iterator[RawExample] | None = None
        self._patience = Patience(STREAM_PATIENCE)
        self._failures_here = 0
        self._refused = False
        self._ended = False

    def read(self, count: int) -> list[RawExample]:
        """The next `count` images; fewer at the end of the shard, none after it.

        Raises:
            BadDataError: a table names a file that it may not.
            StreamLostError: the server refuses (401, 404, twice 403) or stays away for longer than the patience.
        """
        examples: list[RawExample] = []
        while len(examples) < count:
            try:
                if not self._open():
                    break
                for raw in islice(self._rows, count - len(examples)):
                    examples.append(raw)
                    self.row = raw.key[2] + 1
                    self._patience.reset()
                    self._failures_here, self._refused = 0, False
                if len(examples) < count:
                    self._next_row_group()
            except BadDataError:  # what a table names: no attempt mends it
                raise
            except Exception as error:
                self._recover(error)
        return examples

    def _open(self) -> bool:
        """Moves `_rows` to the cursor's position; False past the last row group."""
        if self._ended:
            return False
        if self._row_groups is None:
            self._row_groups = self._dataset.shard(self._dataset.num_shards, self._shard).reshard()
        if self.row_group >= self._row_groups.num_shards:
            return False
        if self._rows is None:
            self._rows = self._read_row_group()
        return True

    def _next_row_group(self) -> None:
        self.row_group, self.row, self._rows = self.row_group + 1, 0, None

    def _read_row_group(self) -> Iterator[RawExample]:
        row_group = self._row_groups.shard(self._row_groups.num_shards, self.row_group)
        row, start = 0, self.row
        # .iter() rather than iter(): the latter would split its shards among the loader's workers a second time.
        for batch in row_group.iter(batch_size=_READ_ROWS):
            images = batch[self._image_column]
            labels = batch[self._label_column] if self._label_column else [None] * len(images)
            for image, label in zip(images, labels, strict=True):
                if row >= start:
                    image = image or {}
                    key = (self._shard, self.row_group, row)
                    data, path = image.get("bytes"), image.get("path")
                    if self._remote and data is None:
                        path = downloaded_path(path)
                    elif self._tables is not None and data is None:
                        path = path_in_table(path, self._tables)
                    yield RawExample(data, path, label, "-".join(map(str, key)), key, self._max_pixels)
                row += 1

    def _recover(self, error: Exception) -> None:
        """Prepares another attempt from the cursor's position; a row group that is unreadable itself (over a network:
        twice) is left out.
        """
        what = f"Reading shard {self._shard} from row {self.row} of row group {self.row_group}"
        message = one_line(error, 300)
        self._rows = None
        status = http_status(error)
        if status == 403 and not self._refused:  # a signed address that has expired: opening again signs a new one
            logger.warning("%s was refused (%s); opening the shard again", what, message)
            self._refused, self._row_groups = True, None
            return
        if status in (401, 403, 404, 410):
            raise StreamLostError(f"{what} was refused: {message}") from error
        if is_transient(error):
            if not self._patience.wait(error, what):
                raise StreamLostError(f"{what} failed for {self._patience.limit:.0f} s: {message}") from error
            return
        self._failures_here += 1
        if self._failures_here < 2 and self._remote:
            return
        self._failures_here = 0
        identity = f"{self._shard}-{self.row_group}"
        logger.warning("%s failed for good and the rest of the row group is left out: %s", what, message)
        share = 1 / self._row_groups.num_shards if self._row_groups is not None else 1.0
        self.lost.append(skip_record(UNREADABLE_FILE, identity, None, message) | {"share_of_shard": share})
        if self._row_groups is None:  # the footer of the file: there are no row groups to go on with
            self._ended = True
        self._next_row_group()


def split_by_row_group(dataset: IterableDataset) -> IterableDataset:
    """The stream split by row group, which makes more shards of few files; reads each file's footer."""
    return with_retries(dataset.reshard, "Reading the footers of the shards")
