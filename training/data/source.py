# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The two kinds of source: `MapSource` (any image by its number) and `StreamSource` (shards read in sequence).

Both hand out undecoded images as `RawExample`; `examples` decodes them, in plain order, for evaluation and previews.
"""

import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

import numpy as np
from datasets import Dataset, IterableDataset
from PIL import Image

from ..seeding import permutation
from .columns import Columns
from .decode import BadImage, open_image
from .shards import RawExample, ShardCursor
from .skips import BadDataError, SkipLog, skip_record
from .subsets import Subset, file_key


logger = logging.getLogger(__name__)

_READ_ROWS = 32  # rows of a stream that are taken at a time
_SAMPLED_SHARDS = 8  # that a seeded sample reads alternately


class NoSuchSplit(ValueError):
    """The data set is there, but the split is not; the message lists those that are."""


@dataclass
class Source:
    """What both kinds share.

    Attributes:
        name: what was opened: `digits`, a Hub id, or the file name of a local folder.
        split: the split that is read.
        columns: the columns that are read.
        num_examples: images, None where a stream does not know; of a fraction of a stream, the expected number.
        num_shards: files that can be read apart; 1 for map-style sources.
        revision: the Hub commit, None for local data.
        subset: the restriction.
        files: (name, size) of the local files behind it, for the fingerprint.
        modified: when they were last changed, in ns, for the content fingerprint.
        unreadable: records of files that were left out because they cannot be read.
    """

    name: str
    split: str
    columns: Columns
    num_examples: int | None
    num_shards: int = 1
    revision: str | None = None
    config: str | None = None
    subset: Subset = field(default_factory=Subset)
    files: list[tuple[str, int]] = field(default_factory=list)
    modified: list[int] = field(default_factory=list)
    unreadable: list[dict] = field(default_factory=list)

    is_map_style = False

    @property
    def image_column(self) -> str:
        return self.columns.image

    @property
    def label_column(self) -> str | None:
        return self.columns.label

    @property
    def label_names(self) -> list[str] | None:
        return self.columns.label_names

    def description(self) -> dict:
        """What was read, to be recorded with the run (JSON-able)."""
        return {
            "dataset": self.name,
            "config": self.config,
            "split": self.split,
            "revision": self.revision,
            "fingerprint": self.fingerprint,
            "streaming": not self.is_map_style,
            "image_column": self.image_column,
            "label_column": self.label_column,
            "num_classes": None if self.label_names is None else len(self.label_names),
            "num_examples": self.num_examples,
            "num_shards": self.num_shards,
            "subset": self.subset.description() if self.subset else None,
            "unreadable_files": [record["path"] for record in self.unreadable],
        }

    @property
    def fingerprint(self) -> str:
        """Changes with the data: revision or local files (names and sizes, so that a run can be resumed on a copy of
        its folder), split, columns, number of images, subset.
        """
        facts = [self.name, self.config, self.split, self.revision, self.files, self.image_column, self.label_column]
        facts += [self.num_examples, self.subset.description() if self.subset else None]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    @property
    def content_fingerprint(self) -> str:
        """`fingerprint`, which also changes when a local file is edited at the same size: for caches of what was
        computed from the images.
        """
        return hashlib.sha256(json.dumps([self.fingerprint, self.modified]).encode()).hexdigest()[:16]

    def raw_examples(self, seed: int | None = None) -> Iterator[RawExample]:
        """All images once, undecoded; in plain order, or shuffled by a seed (streams: shards and rows of a block)."""
        raise TypeError(f"{type(self).__name__} does not say how its images are read")

    def examples(
        self, limit: int | None = None, max_bad_share: float = 0.01, seed: int | None = None
    ) -> Iterator[tuple[Image.Image, object, str]]:
        """All images once: (RGB image, label or None, id). For evaluation and previews.

        Args:
            limit: stop after so many images.
            seed: None keeps the plain order; a number shuffles, so that `limit` images are a sample of all of them and
                not the first classes of a folder.
            max_bad_share: unreadable images are left out with a warning; more than this share of them ends it.

        Raises:
            BadDataError: more than `max_bad_share` of the images cannot be read.
        """
        log = SkipLog(max_bad_share, enough=min(1000, self.num_examples or 1000))
        given = 0
        for raw in self.raw_examples(seed):
            if given == limit:
                return
            try:
                image = open_image(raw.data, raw.path).load()
            except BadImage as error:
                logger.warning("Left out image %s (%s): %s", raw.id, raw.path, error)
                log.add(1, [skip_record(error.kind, raw.id, raw.path, error.detail)])
                continue
            log.add(1, [])
            given += 1
            yield image, raw.label, raw.id


@dataclass
class MapSource(Source):
    """Any image by its number, 0 to num_examples - 1.

    Attributes:
        dataset: the whole split, images undecoded.
        rows: (num_examples,) the rows of `dataset` that the subset keeps.
        label_values: number of each text label, None if labels are numbers.
    """

    dataset: Dataset = None
    rows: np.ndarray = None
    label_values: dict[str, int] | None = None

    is_map_style = True

    def example(self, index: int) -> RawExample:
        """The undecoded image number `index`."""
        row = int(self.rows[index])
        record = self.dataset[row]
        image = record[self.image_column] or {}
        label = record[self.label_column] if self.label_column else None
        if self.label_values is not None:
            label = self.label_values.get(label, -1)
        return RawExample(image.get("bytes"), image.get("path"), label, str(row), (row,))

    def raw_examples(self, seed: int | None = None) -> Iterator[RawExample]:
        count = self.num_examples
        order = range(count) if seed is None else permutation(count, "sample", seed, 0).tolist()
        return (self.example(index) for index in order)


@dataclass
class StreamSource(Source):
    """Shards read in sequence.

    Attributes:
        dataset: the split with the image and the label column only, undecoded.
        remote: whether failures may come from a network.
        listed: names of the subset's file list.
    """

    dataset: IterableDataset = None
    remote: bool = False
    listed: frozenset[str] | None = None

    def cursor(self, shard: int, piece: int = 0, row: int = 0) -> ShardCursor:
        """A place in one shard, to read on from."""
        return ShardCursor(self.dataset, shard, self.image_column, self.label_column, self.remote, piece, row)

    def keeps(self, raw: RawExample) -> bool:
        """Whether the subset keeps this image."""
        if self.listed is not None and (raw.path is None or file_key(raw.path) not in self.listed):
            return False
        return self.subset.keeps(raw.key)

    def raw_examples(self, seed: int | None = None) -> Iterator[RawExample]:
        for number, block in enumerate(self._blocks(seed)):
            if seed is not None:
                block = [block[place] for place in permutation(len(block), "sample", seed, 2, number)]
            yield from filter(self.keeps, block)

    def _blocks(self, seed: int | None) -> Iterator[list[RawExample]]:
        """Rows of one shard after the other; with a seed of several at a time, as a shard may hold one class only."""
        count, together = self.num_shards, 1 if seed is None else _SAMPLED_SHARDS
        order = iter(range(count) if seed is None else permutation(count, "sample", seed, 1).tolist())
        cursors = [self.cursor(shard) for shard in islice(order, together)]
        while cursors:
            reads = [cursor.read(_READ_ROWS) for cursor in cursors]
            for lost in chain(*(cursor.lost for cursor in cursors)):
                raise BadDataError(f"{self.name}: shard {lost['id']} cannot be read: {lost['detail']}")
            yield list(chain(*reads))
            cursors = [cursor for cursor, rows in zip(cursors, reads, strict=True) if rows]
            cursors += [self.cursor(shard) for shard in islice(order, together - len(cursors))]
