# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Batches of a map-style source: batch k of a rank is a pure function of (seed, k)."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from ..seeding import numpy_generator, permutation
from .batch import BatchBuilder, WorkerBatch
from .crops import ViewMaker
from .skips import in_short
from .sources import MapSource


_REPLACEMENTS = 100  # draws for an image that cannot be read, before the data set is called unreadable


@dataclass
class MapFeed:
    """Makes the batches with numbers start, start + step, ... of a rank.

    Args:
        source: the source.
        multi_crop: makes the views.
        batch_size: B, of this rank.
        seed, rank, world_size: of the run.
    """

    source: MapSource
    multi_crop: ViewMaker
    batch_size: int
    seed: int
    rank: int
    world_size: int

    def __post_init__(self):
        self._epoch = -1
        self._order: np.ndarray | None = None

    @property
    def batches_per_epoch(self) -> int:
        """The last, incomplete global batch of an epoch is dropped, so that ranks never differ."""
        return self.source.num_examples // (self.batch_size * self.world_size)

    def batches(self, start: int, step: int) -> Iterator[WorkerBatch]:
        """Batches start, start + step, ..."""
        return map(self.batch, count(start, step))

    def batch(self, number: int) -> WorkerBatch:
        """Batch `number` of this rank, from 0."""
        epoch, batch_in_epoch = divmod(number, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, permutation(self.source.num_examples, "epoch", self.seed, epoch)
        first = batch_in_epoch * self.batch_size * self.world_size + self.rank
        builder = BatchBuilder(self.multi_crop, self.batch_size, self.seed)
        for column in range(self.batch_size):
            position = first + column * self.world_size
            if not builder.add(self.source.example(int(self._order[position])), epoch):
                self._replace(builder, epoch, position)
        return builder.finish(None)

    def _replace(self, builder: BatchBuilder, epoch: int, position: int) -> None:
        """Adds another image instead of one that cannot be read: a batch always has B images."""
        draws = numpy_generator("replacement", self.seed, epoch, position)
        for index in draws.integers(self.source.num_examples, size=_REPLACEMENTS):
            if builder.add(self.source.example(int(index)), epoch):
                return
        raise ValueError(
            f"{_REPLACEMENTS} images drawn in place of an unreadable one cannot be read either; "
            f"the last is {in_short(builder.skipped[-1])}."
        )
