# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`StreamSource`: shards read in sequence."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice

from datasets import ClassLabel, Image, IterableDataset, Value

from ...compat import resolve_features
from ...retry import with_retries
from ...seeding import permutation
from ..decode import RawExample
from ..shards import ShardCursor
from ..skips import BadDataError
from ..subsets import Subset, file_key
from .columns import Columns, find_columns
from .opened import OpenedSplit, SplitRequest
from .source import Source, common_fields


_READ_ROWS = 32  # rows of a shard that are read at a time
_SAMPLED_SHARDS = 8  # that a seeded sample reads alternately
_SHARD_IMAGES = 256  # of a shard, where a map-style data set is streamed


@dataclass(kw_only=True)
class StreamSource(Source):
    """Shards read in sequence.

    Attributes:
        dataset: the split with the image and the label column only, undecoded.
        remote: whether reading may fail for the network's sake.
        listed: names of the subset's file list.
    """

    dataset: IterableDataset = field(repr=False)
    remote: bool = False
    listed: frozenset[str] | None = field(default=None, repr=False)

    def cursor(self, shard: int, row_group: int = 0, row: int = 0) -> ShardCursor:
        """A position in one shard, to read on from."""
        columns = (self.image_column, self.label_column)
        return ShardCursor(self.dataset, shard, *columns, self.remote, row_group, row, self.max_pixels, self.tables)

    def keeps(self, raw: RawExample) -> bool:
        """Whether the subset keeps this image."""
        if self.listed is not None and (raw.path is None or file_key(raw.path) not in self.listed):
            return False
        return self.subset.keeps(raw.key)

    def raw_examples(self, seed: int | None = None) -> Iterator[RawExample]:
        for number, block in enumerate(self._blocks(seed)):
            if seed is not None:
                block = [block[index] for index in permutation(len(block), "sample", seed, 2, number)]
            for raw in filter(self.keeps, block):
                self.check_label(raw)
                yield raw

    def raw_examples_after(
        self, key: tuple[int, ...] | None, on_lost: Callable[[list[dict]], None]
    ) -> Iterator[RawExample]:
        shard, row_group, row = key or (0, 0, -1)
        for number in range(shard, self.num_shards):
            cursor = self.cursor(number, row_group, row + 1)
            block: list[RawExample] | None = None
            while block is None or block:
                block = cursor.read(_READ_ROWS)
                on_lost(cursor.lost)
                cursor.lost = []
                for raw in filter(self.keeps, block):
                    self.check_label(raw)
                    yield raw
            row_group, row = 0, -1

    def _blocks(self, seed: int | None) -> Iterator[list[RawExample]]:
        """Rows of one shard after the other; with a seed of several at a time, as a shard may hold one class only."""
        count, num_open = self.num_shards, 1 if seed is None else _SAMPLED_SHARDS
        order = iter(range(count) if seed is None else permutation(count, "sample", seed, 1).tolist())
        cursors = [self.cursor(shard) for shard in islice(order, num_open)]
        while cursors:
            reads = [cursor.read(_READ_ROWS) for cursor in cursors]
            for lost in chain(*(cursor.lost for cursor in cursors)):
                raise BadDataError(f"{self.name}: shard {lost['id']} cannot be read: {lost['detail']}")
            yield list(chain(*reads))
            cursors = [cursor for cursor, rows in zip(cursors, reads, strict=True) if rows]
            cursors += [self.cursor(shard) for shard in islice(order, num_open - len(cursors))]


def as_stream(opened: OpenedSplit) -> OpenedSplit:
    """A map-style split as shards that are read in sequence."""
    rows = len(opened.data)
    data = opened.data.to_iterable_dataset(num_shards=max(1, rows // _SHARD_IMAGES))
    return replace(opened, data=data, num_rows=rows)


def stream_source(
    opened: OpenedSplit, request: SplitRequest, subset: Subset, image_column: str | None, label_column: str | None
) -> StreamSource:
    """The source of a streamed split.

    Raises:
        ValueError: a column is missing, or the subset or the labels need all rows at once.
    """
    if subset.needs_labels:
        raise ValueError(
            "subset: images_per_class and imbalance_factor have to count the classes first: set streaming to false."
        )
    data = opened.data
    if data.features is None:
        data = with_retries(lambda: resolve_features(opened.data), "Reading the first image")
    columns = find_columns(data.features, image_column, label_column)
    if columns.text_labels:
        if label_column is not None:
            raise ValueError(
                f"label_column: {label_column!r} holds text, which a stream cannot number: set streaming to false."
            )
        columns = Columns(columns.image, None, None)
    data = data.select_columns(columns.names).cast_column(columns.image, Image(decode=False))
    if columns.label and isinstance(data.features[columns.label], ClassLabel):
        # datasets would end a row group at a number that is no class, without the image's name.
        data = data.cast_column(columns.label, Value("int64"))
    source = StreamSource(
        columns=columns,
        num_examples=_expected_examples(data, opened.num_rows, request.split, subset),
        num_shards=data.num_shards,
        dataset=data,
        remote=opened.remote,
        listed=subset.listed_names(),
        **common_fields(opened, request, subset),
    )
    if source.tables is not None:
        _check_first(source)
    return source


def _check_first(source: StreamSource) -> None:
    """Raises ValueError where the first image of a local table is a file that the table may not name."""
    try:
        source.cursor(0).read(1)
    except BadDataError as error:
        raise ValueError(str(error)) from error


def _expected_examples(data: IterableDataset, rows: int | None, split: str, subset: Subset) -> int | None:
    """Images of a stream: counted, or as its metadata say; None where neither is known."""
    if rows is None and data.info.splits and split in data.info.splits:
        rows = data.info.splits[split].num_examples
    if subset.file_list is not None or not rows:
        return None
    return rows if subset.fraction is None else max(1, round(subset.fraction * rows))
