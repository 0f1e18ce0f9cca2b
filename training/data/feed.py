# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a worker does: an endless, resumable sequence of batches, made of nothing but (seed, position).

`MapFeed` and `StreamFeed` make the batches with numbers start, start + step, ... of a rank. A map-style batch follows
from its number. A stream is read by `readers`: reader k of a rank makes its batches k, k + readers, ... and has a
place in the data.

Legend: V views, B images of a rank's batch, C = 3; one tensor a resolution, (V_r, B, C, h, w), global first.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from torch.utils.data import get_worker_info

from ..seeding import image_generator, numpy_generator, permutation
from .crops import ViewMaker
from .decode import BadImage, open_image
from .shards import RawExample, ShardCursor
from .skips import skip_record
from .source import MapSource, StreamSource


_REPLACEMENTS = 100  # draws for an image that cannot be read, before the data set is called unreadable


class MadeBatch(NamedTuple):
    """A batch on its way from a worker.

    Attributes:
        views: one tensor a resolution, (V_r, B, C, h, w).
        labels: (B,) class numbers, -1 without one.
        ids: B names.
        state: the reader's place after this batch (streams), else None.
        seen: images looked at for this batch.
        skipped: records of those that cannot be read.
    """

    views: list[torch.Tensor]
    labels: torch.Tensor
    ids: list[str]
    state: dict | None
    seen: int
    skipped: list[dict]


@dataclass
class BatchBuilder:
    """Collects views of B images in one tensor a resolution; in a worker in shared memory, where they are handed over
    without a copy.
    """

    multi_crop: ViewMaker
    batch_size: int
    seed: int
    views: list[torch.Tensor] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    skipped: list[dict] = field(default_factory=list)
    seen: int = 0

    def __post_init__(self):
        shapes = [(views, self.batch_size, 3, side, side) for views, side in self.multi_crop.resolutions]
        self.views = [_empty(shape, self.multi_crop.dtype) for shape in shapes]

    def add(self, raw: RawExample, epoch: int) -> bool:
        """Decodes and crops an image; False (and a record) if it cannot be read."""
        self.seen += 1
        try:
            opened = open_image(raw.data, raw.path)
            crops = self.multi_crop.from_opened(opened, image_generator(self.seed, epoch, raw.key))
        except BadImage as error:
            self.skipped.append(skip_record(error.kind, raw.id, raw.path, error.detail))
            return False
        column, first = len(self.ids), 0
        for tensor in self.views:
            for view, crop in enumerate(crops[first : first + len(tensor)]):
                tensor[view, column].copy_(crop)
            first += len(tensor)
        self.labels.append(raw.label if isinstance(raw.label, int) else -1)
        self.ids.append(raw.id)
        return True

    @property
    def full(self) -> bool:
        return len(self.ids) == self.batch_size

    def finish(self, state: dict | None) -> MadeBatch:
        return MadeBatch(self.views, torch.tensor(self.labels), self.ids, state, self.seen, self.skipped)


def _empty(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    if get_worker_info() is None:
        return torch.empty(shape, dtype=dtype)
    # As torch's default_collate does it: the memory is shared from the start.
    storage = torch.UntypedStorage._new_shared(int(np.prod(shape)) * dtype.itemsize)
    return torch.empty(0, dtype=dtype).set_(storage, 0, shape)


@dataclass
class MapFeed:
    """Batches of a map-style source: batch k of a rank is a pure function of (seed, k).

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
        self._epoch, self._order = -1, None

    @property
    def batches_per_epoch(self) -> int:
        """The last, incomplete global batch of an epoch is dropped, so that ranks never differ."""
        return self.source.num_examples // (self.batch_size * self.world_size)

    def batches(self, start: int, step: int) -> Iterator[MadeBatch]:
        """Batches start, start + step, ..."""
        return map(self.batch, count(start, step))

    def batch(self, number: int) -> MadeBatch:
        epoch, place = divmod(number, self.batches_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, permutation(self.source.num_examples, "epoch", self.seed, epoch)
        first = place * self.batch_size * self.world_size + self.rank
        builder = BatchBuilder(self.multi_crop, self.batch_size, self.seed)
        for column in range(self.batch_size):
            position = first + column * self.world_size
            if not builder.add(self.source.example(int(self._order[position])), epoch):
                self._replace(builder, epoch, position)
        return builder.finish(None)

    def _replace(self, builder: BatchBuilder, epoch: int, position: int) -> None:
        """Another image in place of one that cannot be read: a batch always has B images."""
        draws = numpy_generator("replacement", self.seed, epoch, position)
        for index in draws.integers(self.source.num_examples, size=_REPLACEMENTS):
            if builder.add(self.source.example(int(index)), epoch):
                return
        last = builder.skipped[-1]
        raise ValueError(
            f"{_REPLACEMENTS} images drawn in place of an unreadable one cannot be read either; "
            f"the last is {last['path'] or last['id']} ({last['kind']}: {last['detail']})."
        )


@dataclass(frozen=True)
class StreamPlan:
    """How a stream is shared out and shuffled.

    Attributes:
        seed: of the run.
        reader, readers: this reader's number among those of all ranks.
        units: shards (times stripes) that are dealt out each epoch.
        stripes: parts into which a shard's rows are dealt, where there are fewer shards than readers.
        open_shards: shards that are read alternately, so that a block mixes them.
        block_rows: images that are shuffled together.
        block_bytes: a block ends early at this size, which bounds a worker's memory.
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
    """One reader's endless sequence of undecoded images, and its place in it.

    In each epoch the shards are shuffled and dealt to the readers of all ranks; a reader takes `open_shards` of its
    shards at a time, reads them in turns into a block, and shuffles the block. The place is the cursors at the start
    of the block and the number of images taken from it: going back to it reads one block again.
    """

    def __init__(self, source: StreamSource, plan: StreamPlan, state: dict | None = None):
        self._source, self._plan = source, plan
        state = state or {"epoch": 0, "block": 0, "dealt": 0, "cursors": [], "taken": 0}
        self._epoch, self._number, self._dealt = state["epoch"], state["block"], state["dealt"]
        self._cursors = [self._cursor(*place) for place in state["cursors"]]
        self._block: list[RawExample] | None = None
        self._block_start: dict = {}
        self._taken = state["taken"]
        self._given_in_epoch = state.get("given", 0)
        self.lost: list[dict] = []

    def state(self) -> dict:
        """The place after the last image: JSON-able, and enough to go on with the next."""
        if self._block is None:
            return {**self._place(), "taken": self._taken}
        return {**self._block_start, "taken": self._taken}

    def next(self) -> tuple[RawExample, int]:
        """The next image and its epoch."""
        while self._block is None or self._taken >= len(self._block):
            if self._block is not None:
                self._taken = 0
            self._read_block()
        self._taken += 1
        return self._block[self._taken - 1], self._epoch

    def _place(self) -> dict:
        return {
            "epoch": self._epoch,
            "block": self._number,
            "dealt": self._dealt,
            "cursors": [[unit, cursor.piece, cursor.row] for unit, cursor in self._cursors],
            "given": self._given_in_epoch,
        }

    def _cursor(self, unit: int, piece: int = 0, row: int = 0) -> tuple[int, ShardCursor]:
        return unit, self._source.cursor(unit // self._plan.stripes, piece, row)

    def _hand(self) -> np.ndarray:
        """The units of this reader in the current epoch, in order."""
        order = permutation(self._plan.units, "epoch", self._plan.seed, self._epoch)
        return order[self._plan.reader :: self._plan.readers]

    def _read_block(self) -> None:
        """Fills the next block, of the next epoch where this one is over."""
        start, self._block = self._place(), None  # two blocks would be held otherwise
        rows = self._fill()
        if not rows:
            self._end_epoch()
            return
        self._block_start = start
        self._number += 1
        self._given_in_epoch += len(rows)
        order = permutation(len(rows), "block", self._plan.seed, self._epoch, self._plan.reader, start["block"])
        self._block = [rows[index] for index in order]

    def _fill(self) -> list[RawExample]:
        plan, hand = self._plan, self._hand()
        rows: list[RawExample] = []
        size = 0
        while len(rows) < plan.block_rows and size < plan.block_bytes:
            while len(self._cursors) < plan.open_shards and self._dealt < len(hand):
                self._cursors.append(self._cursor(int(hand[self._dealt])))
                self._dealt += 1
            if not self._cursors:
                break
            unit, cursor = self._cursors.pop(0)
            read = cursor.read(plan.turn)
            self.lost += cursor.lost
            cursor.lost = []
            if len(read) == plan.turn:
                self._cursors.append((unit, cursor))
            kept = [
                raw for raw in read if raw.key[2] % plan.stripes == unit % plan.stripes and self._source.keeps(raw)
            ]
            size += sum(len(raw.data or b"") for raw in kept)
            rows += kept
        return rows

    def _end_epoch(self) -> None:
        if self._given_in_epoch == 0 and len(self._hand()):
            raise ValueError(
                f"Nothing is left of the stream {self._source.name} for reader {self._plan.reader}: subset too small?"
            )
        self._epoch, self._number, self._dealt, self._given_in_epoch = self._epoch + 1, 0, 0, 0


@dataclass
class StreamFeed:
    """Batches of a stream: batch k of a rank comes from its reader k mod `readers`.

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
        total = self.readers * self.world_size
        stripes = -(-total // self.source.num_shards)
        number = self.rank * self.readers + reader
        return StreamPlan(self.seed, number, total, self.source.num_shards * stripes, stripes)

    def batches(self, start: int, step: int) -> Iterator[MadeBatch]:
        """Batches start, start + step, ...: step is 1, or a number of workers that divides `readers`."""
        readers: dict[int, StreamReader] = {}
        for number in count(start, step):
            index = number % self.readers
            if index not in readers:
                readers[index] = StreamReader(self.source, self.plan(index), self.states[index])
            yield self._batch(readers[index])

    def _batch(self, reader: StreamReader) -> MadeBatch:
        builder = BatchBuilder(self.multi_crop, self.batch_size, self.seed)
        while not builder.full:
            raw, epoch = reader.next()
            builder.add(raw, epoch)
            _stop_if_hopeless(builder, self.source.name)
        builder.skipped += reader.lost
        reader.lost = []
        return builder.finish(reader.state())


def _stop_if_hopeless(builder: BatchBuilder, name: str) -> None:
    """A worker that finds nothing but unreadable images would never hand over a batch for the loader to judge."""
    if (
        len(builder.skipped) >= max(_REPLACEMENTS, 10 * builder.batch_size)
        and len(builder.skipped) > 0.9 * builder.seen
    ):
        last = builder.skipped[-1]
        raise ValueError(
            f"{len(builder.skipped)} of {builder.seen} images of {name} in a row cannot be read; "
            f"the last is {last['path'] or last['id']} ({last['kind']}: {last['detail']})."
        )
