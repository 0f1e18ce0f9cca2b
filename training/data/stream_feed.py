# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Batches of a stream: shards and blocks of images are shuffled, and reading resumes at the very next image.

A rank has `readers` readers: reader k makes its batches k, k + readers, ... Where there are fewer shards than readers
of all ranks, the rows of each shard are split into stripes. What is assigned to readers are units: shards times
stripes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import numpy as np

from ..seeding import permutation
from .batch import BatchBuilder, WorkerBatch
from .crops import ViewMaker
from .decode import RawExample
from .shards import ShardCursor
from .skips import in_short
from .sources import StreamSource


_HOPELESS = 100  # unreadable images in a batch, at least, at which its source is called unreadable


@dataclass(frozen=True)
class StreamPlan:
    """How a stream is split among readers and shuffled.

    Attributes:
        seed: of the run.
        reader, readers: this reader's number among those of all ranks.
        units: shards (times stripes) that are assigned each epoch.
        stripes: parts into which a shard's rows are split, where there are fewer shards than readers.
        open_shards: shards that are read alternately, so that a block mixes them.
        block_rows: images that are shuffled together.
        block_bytes: a block ends early at this size, which bounds a worker's memory.
        turn: rows that are read of a shard before the next one's turn.
    """

    seed: int
    reader: int
    readers: int
    units: int
    stripes: int
    open_shards: int = 4
    block_rows: int = 1024
    block_bytes: int = 96 << 20
    turn: int = 16


class StreamReader:
    """One reader's endless sequence of undecoded images, and its position in it.

    In each epoch the units are shuffled and assigned to the readers of all ranks; a reader opens `open_shards` of its
    own at a time, reads them in turns into a block, and shuffles the block. Its position is that of the cursors at the
    start of the block and the number of images taken from it: going back to it reads one block again.
    """

    def __init__(self, source: StreamSource, plan: StreamPlan, state: dict | None = None):
        self._source, self._plan = source, plan
        state = state or {"epoch": 0, "block": 0, "dealt": 0, "cursors": [], "taken": 0}
        self._epoch, self._number, self._opened = state["epoch"], state["block"], state["dealt"]
        self._cursors = [self._cursor(*position) for position in state["cursors"]]
        self._block: list[RawExample] | None = None
        self._block_start: dict = {}
        self._taken = state["taken"]
        self._rows_in_epoch = state.get("given", 0)
        self.lost: list[dict] = []

    def state(self) -> dict:
        """The position after the last image: JSON-able, and enough to go on with the next."""
        if self._block is None:
            return {**self._position(), "taken": self._taken}
        return {**self._block_start, "taken": self._taken}

    def next(self) -> tuple[RawExample, int]:
        """The next image and its epoch."""
        while self._block is None or self._taken >= len(self._block):
            if self._block is not None:
                self._taken = 0
            self._read_block()
        self._taken += 1
        return self._block[self._taken - 1], self._epoch

    def _position(self) -> dict:
        """Where the next block starts. Checkpoints hold these keys."""
        return {
            "epoch": self._epoch,
            "block": self._number,
            "dealt": self._opened,
            "cursors": [[unit, cursor.row_group, cursor.row] for unit, cursor in self._cursors],
            "given": self._rows_in_epoch,
        }

    def _cursor(self, unit: int, row_group: int = 0, row: int = 0) -> tuple[int, ShardCursor]:
        return unit, self._source.cursor(unit // self._plan.stripes, row_group, row)

    def _assigned(self) -> np.ndarray:
        """The units of this reader in the current epoch, in order."""
        order = permutation(self._plan.units, "epoch", self._plan.seed, self._epoch)
        return order[self._plan.reader :: self._plan.readers]

    def _read_block(self) -> None:
        """Reads the next block, of the next epoch where this one is over."""
        start, self._block = self._position(), None  # two blocks would be held otherwise
        rows = self._read_rows()
        if not rows:
            self._end_epoch()
            return
        self._block_start = start
        self._number += 1
        self._rows_in_epoch += len(rows)
        order = permutation(len(rows), "block", self._plan.seed, self._epoch, self._plan.reader, start["block"])
        self._block = [rows[index] for index in order]

    def _read_rows(self) -> list[RawExample]:
        """The rows of a block, in the order that they are read in."""
        plan, assigned = self._plan, self._assigned()
        rows: list[RawExample] = []
        size = 0
        while len(rows) < plan.block_rows and size < plan.block_bytes:
            while len(self._cursors) < plan.open_shards and self._opened < len(assigned):
                self._cursors.append(self._cursor(int(assigned[self._opened])))
                self._opened += 1
            if not self._cursors:
                break
            unit, cursor = self._cursors.pop(0)
            read = cursor.read(plan.turn)
            self.lost += cursor.lost
            cursor.lost = []
            if len(read) == plan.turn:
                self._cursors.append((unit, cursor))
            own = [raw for raw in read if self._is_own(raw, unit)]
            size += sum(len(raw.data or b"") for raw in own)
            rows += own
        return rows

    def _is_own(self, raw: RawExample, unit: int) -> bool:
        """Whether an image of the unit's shard lies in its stripe and in the subset."""
        stripes = self._plan.stripes
        return raw.key[2] % stripes == unit % stripes and self._source.keeps(raw)

    def _end_epoch(self) -> None:
        if self._rows_in_epoch == 0 and len(self._assigned()):
            raise ValueError(
                f"Nothing is left of the stream {self._source.name} for reader {self._plan.reader}: subset too small?"
            )
        self._epoch, self._number, self._opened, self._rows_in_epoch = self._epoch + 1, 0, 0, 0


@dataclass
class StreamFeed:
    """Makes the batches of a rank: batch k comes from its reader k mod `readers`.

    Args:
        source: the source.
        multi_crop: makes the views.
        batch_size: B, of this rank.
        seed, rank, world_size: of the run.
        readers: readers of this rank.
        states: where each reader of this rank starts.
    """

    source: StreamSource
    multi_crop: ViewMaker
    batch_size: int
    seed: int
    rank: int
    world_size: int
    readers: int
    states: list[dict | None]

    @property
    def batches_per_epoch(self) -> int | None:
        """Global batches in as many images as the stream has; None where it does not say."""
        if self.source.num_examples is None:
            return None
        return max(1, self.source.num_examples // (self.batch_size * self.world_size))

    def plan(self, reader: int) -> StreamPlan:
        """What reader `reader` of this rank reads."""
        total = self.readers * self.world_size
        stripes = -(-total // self.source.num_shards)
        number = self.rank * self.readers + reader
        return StreamPlan(self.seed, number, total, self.source.num_shards * stripes, stripes)

    def batches(self, start: int, step: int) -> Iterator[WorkerBatch]:
        """Batches start, start + step, ...: step is 1, or a number of workers that divides `readers`."""
        readers: dict[int, StreamReader] = {}
        for number in count(start, step):
            index = number % self.readers
            if index not in readers:
                readers[index] = StreamReader(self.source, self.plan(index), self.states[index])
            yield self._batch(readers[index])

    def _batch(self, reader: StreamReader) -> WorkerBatch:
        builder = BatchBuilder(self.multi_crop, self.batch_size, self.seed)
        while not builder.full:
            raw, epoch = reader.next()
            self.source.check_label(raw)
            builder.add(raw, epoch)
            _stop_if_hopeless(builder, self.source.name)
        builder.skipped += reader.lost
        reader.lost = []
        return builder.finish(reader.state())


def _stop_if_hopeless(builder: BatchBuilder, name: str) -> None:
    """A worker that finds nothing but unreadable images would never finish a batch, so the loader could not stop."""
    bad = len(builder.skipped)
    if bad >= max(_HOPELESS, 10 * builder.batch_size) and bad > 0.9 * builder.seen:
        raise ValueError(
            f"{bad} of {builder.seen} images of {name} in a row cannot be read; "
            f"the last is {in_short(builder.skipped[-1])}."
        )
