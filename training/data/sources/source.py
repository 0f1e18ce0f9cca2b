# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What both kinds of source have in common: metadata, fingerprints, and reading in order.

Both yield undecoded images as `RawExample`; `examples` decodes them, in plain order, for evaluation and previews.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from datasets import ClassLabel
from PIL import Image
from pyarrow import compute

from ...run_folder import Json
from ..decode import BadImage, RawExample
from ..skips import BadDataError, SkipLog, skip_record
from ..subsets import Subset
from .columns import Columns
from .opened import OpenedSplit, SplitRequest


logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Source:
    """What was opened, and how its images are read in order.

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
        left_out: sentences about files that are there and not read.
        root: the folder of images that was opened, None for other data.
        tables: of `OpenedSplit`.
        max_bad_share: share of unreadable images above which whoever reads them all ends.
        max_pixels: of an image, None for the default.
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
    left_out: list[str] = field(default_factory=list)
    root: str | None = None
    tables: str | None = None
    max_bad_share: float = 0.01
    max_pixels: int | None = None

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
            "left_out": self.left_out,
        }

    @property
    def fingerprint(self) -> str:
        """Changes with the data: name and revision of a Hub data set, or local files (names and sizes, so that a run
        can be resumed on a copy of its folder, whatever that is called), split, columns, number of images, subset.
        """
        parts = [None if self.files else self.name, self.config, self.split, self.revision, self.files]
        parts += [self.image_column, self.label_column]
        parts += [self.num_examples, self.subset.content() if self.subset else None]
        return _digest(parts)

    @property
    def content_fingerprint(self) -> str:
        """`fingerprint`, which also changes when a local file is edited at the same size: for caches of what was
        computed from the images.
        """
        return _digest([self.fingerprint, self.modified])

    def raw_examples(self, seed: int | None = None) -> Iterator[RawExample]:
        """All images once, undecoded; in plain order, or shuffled by a seed (streams: shards and rows of a block)."""
        raise TypeError(f"{type(self).__name__} does not say how its images are read")

    def raw_examples_after(
        self, key: tuple[int, ...] | None, on_lost: Callable[[list[dict]], None]
    ) -> Iterator[RawExample]:
        """The images after the one with this key (None: all), undecoded, in plain order.

        Args:
            key: `RawExample.key` of an image.
            on_lost: takes the records of row groups that cannot be read, which are left out.
        """
        raise TypeError(f"{type(self).__name__} does not say how its images are read")

    def file_name(self, raw: RawExample) -> str:
        """The path of an image below the folder that was opened, or what a table or a tar calls it; "" for nothing.

        The same on any copy of a folder.
        """
        path, root = raw.path or "", self.root or self.tables
        if raw.data is None and root and path.startswith(os.path.join(root, "")):
            return os.path.relpath(path, root)
        return path

    def check_label(self, raw: RawExample) -> None:
        """Raises BadDataError for a class that the column does not declare: whoever counts by it would fail later."""
        names, labels = self.label_names, raw.label if isinstance(raw.label, list) else [raw.label]
        if names and (wrong := [one for one in labels if isinstance(one, int) and not -1 <= one < len(names)]):
            raise BadDataError(f"{self.name}: image {raw.id} has the label {wrong[0]}, {_declared(names)}")

    def examples(
        self, limit: int | None = None, max_bad_share: float | None = None, seed: int | None = None
    ) -> Iterator[tuple[Image.Image, object, str]]:
        """All images once: (RGB image, label or None, id). For evaluation and previews.

        Args:
            limit: stop after so many images.
            seed: None keeps the plain order; a number shuffles, so that `limit` images are a sample of all of them and
                not the first classes of a folder.
            max_bad_share: unreadable images are left out with a warning; more than this share of them ends it. None:
                that of the source.

        Raises:
            BadDataError: more than `max_bad_share` of the images cannot be read.
        """
        share = self.max_bad_share if max_bad_share is None else max_bad_share
        enough = min(1000, self.num_examples or 1000)
        log = SkipLog(share, enough=enough, total=self.num_examples, flag="--max_bad_share")
        given = 0
        for raw in self.raw_examples(seed):
            if given == limit:
                return
            try:
                image = raw.open().load()
            except BadImage as error:
                logger.warning("Left out image %s (%s): %s", raw.id, raw.path, error)
                log.add(1, [skip_record(error.kind, raw.id, raw.path, error.detail)])
                continue
            log.add(1, [])
            given += 1
            yield image, raw.label, raw.id
        log.finish()  # the bad ones may have come first


def check_labels(opened: OpenedSplit, columns: Columns) -> None:
    """Raises ValueError if a column at hand holds classes that it does not declare."""
    if not isinstance(opened.data.features.get(columns.label), ClassLabel):
        return
    found = compute.min_max(opened.data.data.column(columns.label)).as_py()
    for label in found.values():
        if label is not None and not -1 <= label < len(columns.label_names or []):
            raise ValueError(f"label_column: {columns.label!r} holds {label}, {_declared(columns.label_names or [])}.")


def _declared(names: list[str]) -> str:
    return f"and its {len(names)} classes are numbered from 0 to {len(names) - 1}, with -1 for none"


def common_fields(opened: OpenedSplit, request: SplitRequest, subset: Subset) -> Json:
    """The fields that both kinds of source take from what was opened."""
    return {
        "name": opened.name,
        "split": request.split,
        "config": request.config,
        "revision": opened.revision,
        "subset": subset,
        "files": opened.files,
        "modified": opened.modified,
        "unreadable": opened.unreadable,
        "left_out": opened.left_out,
        "root": opened.root,
        "tables": opened.tables,
        "max_bad_share": request.max_bad_share,
        "max_pixels": request.max_pixels,
    }


def _digest(parts: list) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
