# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""`PretrainingLoader`: endless batches of views for one rank, exact to the image after any restart.

Legend: V views, B images of this rank's batch, C = 3; one tensor per resolution, (V_r, B, C, h, w), global first.
"""

import multiprocessing
import os
import signal
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import resource_tracker
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from ..compat import stop_loader_workers
from ..errors import RunStopped, failure_of_machine, one_line
from .batch import WorkerBatch
from .crops import ViewMaker
from .map_feed import MapFeed
from .shards import StreamLostError, split_by_row_group
from .skips import BadDataError, SkipLog
from .sources import MapSource, Source, StreamSource
from .stream_feed import StreamFeed


class MultiViewBatch(NamedTuple):
    """One rank's batch.

    Attributes:
        views: one tensor per resolution, (V_r, B, C, h, w), global first; uint8, or normalized float32 from a
            `TorchvisionReference`; pinned where a GPU is there.
        labels: (B,) class numbers, -1 where there is none (or several).
        ids: the B images' names.
    """

    views: list[torch.Tensor]
    labels: torch.Tensor
    ids: list[str]


class _Failure(NamedTuple):
    """What ended a worker, in one line: an exception raised there would arrive as a page of traceback."""

    kind: str
    message: str


class _Batches(IterableDataset):
    """Runs a feed in a worker process, or in the main one."""

    def __init__(self, feed: MapFeed | StreamFeed, start: int):
        self.feed, self.start = feed, start

    def __iter__(self) -> Iterator[WorkerBatch | _Failure]:
        worker = get_worker_info()
        offset, step = (worker.id, worker.num_workers) if worker else (0, 1)
        try:
            yield from self.feed.batches(self.start + offset, step)
        except (ValueError, StreamLostError, OSError, MemoryError, RuntimeError) as error:
            message = failure_of_machine(error)
            if message is None and isinstance(error, RuntimeError) and not isinstance(error, StreamLostError):
                raise
            yield _Failure("RunStopped" if message else type(error).__name__, message or one_line(error, 1000))


class PretrainingLoader:
    """An endless iterator of `MultiViewBatch`.

    Order: a map-style source is permuted by (seed, epoch), rank r takes the images r, r + N, ... of each global batch,
        and neither the number of workers nor a restart changes anything. A stream's shards are shuffled and assigned
        to N x readers each epoch, then blocks are shuffled; `readers` is the number of workers at the first start and
        stays in the position.

    Args:
        source: from `open_stream`.
        multi_crop: makes the views.
        batch_size: B, images of this rank's batch.
        seed: of order and crops.
        rank, world_size: this process among all.
        num_workers: worker processes; 0 works in this one.
        position: what `position()` returned; None starts at the beginning.
        max_bad_share: share of unreadable images above which the run stops.
        skipped_path: jsonl file that lists them; ranks above 0 add their number to its name.
        prefetch: batches that each worker prepares ahead.

    Raises:
        ValueError: the source is smaller than a global batch, or the position belongs to another run.
        BadDataError: (from next) more than `max_bad_share` of the images cannot be read.
        RunStopped: (from next) the memory of the machine, or what it lends to workers, is full.
        StreamLostError: (from next) the server refuses, or stayed away for ten minutes.
    """

    def __init__(
        self,
        source: Source,
        multi_crop: ViewMaker,
        *,
        batch_size: int,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        num_workers: int = 0,
        position: dict | None = None,
        max_bad_share: float = 0.01,
        skipped_path: str | Path | None = None,
        prefetch: int = 2,
    ):
        _check_sizes(source, batch_size, rank, world_size, num_workers)
        self._identity = {"seed": seed, "rank": rank, "world_size": world_size, "batch_size": batch_size}
        self._identity["data"] = source.fingerprint
        _check_position(position, self._identity)
        self._number = position["batch"] if position else 0
        self._readers: list[dict | None] | None = None
        if isinstance(source, MapSource):
            feed = MapFeed(source, multi_crop, batch_size, seed, rank, world_size)
        else:
            self._readers = list(position["readers"]) if position else [None] * max(1, num_workers)
            num_workers = _dividing(len(self._readers), num_workers)
            source = _enough_shards(source, len(self._readers) * world_size)
            feed = StreamFeed(
                source, multi_crop, batch_size, seed, rank, world_size, len(self._readers), self._readers.copy()
            )
        self._feed = feed
        enough = min(1000, (source.num_examples or 1000 * world_size) // world_size)
        self._log = SkipLog(
            max_bad_share,
            path=_rank_path(skipped_path, rank),
            enough=enough,
            shards=source.num_shards,
            total=source.num_examples,
            flag="--max_bad_share",
        )
        if position:
            self._log.load(position["skipped"])
        elif source.unreadable and rank == 0:
            self._log.note(source.unreadable)
        self.wait_seconds = 0.0
        batches = DataLoader(
            _Batches(feed, self._number),
            batch_size=None,
            num_workers=num_workers,
            collate_fn=_as_it_is,
            pin_memory=torch.cuda.is_available(),
            prefetch_factor=prefetch if num_workers else None,
            worker_init_fn=_begin_worker,
        )
        with _signals_held():
            self._batches = iter(batches)
        self._end_workers = weakref.finalize(self, stop_loader_workers, self._batches)

    @property
    def batches_per_epoch(self) -> int | None:
        """Global batches an epoch; None for a stream that does not know its length."""
        return self._feed.batches_per_epoch

    @property
    def skipped(self) -> Counter:
        """Images of this rank that could not be read, by kind."""
        return self._log.counts

    def __iter__(self) -> "PretrainingLoader":
        return self

    def __next__(self) -> MultiViewBatch:
        if self._batches is None:
            raise StopIteration
        started = time.perf_counter()
        made = next(self._batches)
        self.wait_seconds += time.perf_counter() - started
        if isinstance(made, _Failure):
            self.close()
            kinds: dict[str, type[Exception]] = {"StreamLostError": StreamLostError, "RunStopped": RunStopped}
            raise kinds.get(made.kind, BadDataError)(made.message)
        if self._readers is not None:
            self._readers[self._number % len(self._readers)] = made.state
        self._number += 1
        self._log.add(made.seen, made.skipped)
        return MultiViewBatch(made.views, made.labels, made.ids)

    def position(self) -> dict:
        """This rank's position after the last batch returned (JSON-able). Checkpoints hold these keys."""
        position = {**self._identity, "batch": self._number, "skipped": self._log.state()}
        if self._readers is not None:
            position["readers"] = list(self._readers)
        return position

    def close(self) -> None:
        """Stops the workers; a loader that is forgotten, or alive when the program ends, does it by itself."""
        self._batches = None
        self._end_workers()


@contextmanager
def _signals_held() -> Iterator[None]:
    """SIGINT and SIGTERM wait, for this process and for those that start inside: a spawned worker imports for seconds
    before it comes to ignore them, and would die of a signal to the process group.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows, which sends no signals to a group
        yield
        return
    if multiprocessing.get_start_method() != "fork":
        resource_tracker.ensure_running()  # now: to start it later would let the signals through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(_worker: int) -> None:
    """Ctrl-C and a scheduler signal the whole process group: the parent decides whether to finish a step and save, for
    which it needs its workers; those of a closed loader are ended by `stop_loader_workers`. When the parent is gone,
    they end: torch's watchdog looks at the parent process, which for workers of a fork server is the server, and that
    lives as long as they do.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def _as_it_is(batch: WorkerBatch) -> WorkerBatch:
    return batch


def _check_sizes(source: Source, batch_size: int, rank: int, world_size: int, num_workers: int) -> None:
    if batch_size < 1 or num_workers < 0 or not 0 <= rank < world_size:
        raise ValueError(
            f"batch_size must be at least 1, num_workers at least 0, rank in [0, world_size): "
            f"got {batch_size}, {num_workers}, "
            f"{rank} of {world_size}."
        )
    if isinstance(source, MapSource) and source.num_examples < batch_size * world_size:
        raise ValueError(
            f"{source.name} has {source.num_examples} images, fewer than a global batch of {batch_size * world_size}: "
            f"set global_batch_size to at most {source.num_examples // world_size * world_size} "
            f"on {world_size} process(es)."
        )


def _check_position(position: dict | None, identity: dict) -> None:
    if position is None:
        return
    skipped = position.get("skipped")
    whole = isinstance(skipped, dict) and isinstance(skipped.get("counts"), dict) and "seen" in skipped
    if not whole or not isinstance(position.get("batch"), int) or position["batch"] < 0:
        raise ValueError("The position to resume from is not what a run writes: start anew in another output_dir.")
    for name, value in identity.items():
        if position.get(name) != value:
            raise ValueError(
                f"The position to resume from was saved with {name} {position.get(name)}, this run has {value}: "
                "restore it, or start anew in another output_dir."
            )


def _dividing(readers: int, workers: int) -> int:
    """The largest number of workers, at most `workers`, that can share the readers evenly."""
    return next((number for number in range(min(readers, workers), 0, -1) if readers % number == 0), 0)


def _enough_shards(source: StreamSource, readers: int) -> StreamSource:
    """Where there are fewer shards than readers, row groups are assigned instead."""
    if source.num_shards >= readers:
        return source
    dataset = split_by_row_group(source.dataset)
    return replace(source, dataset=dataset, num_shards=dataset.num_shards)


def _rank_path(path: str | Path | None, rank: int) -> Path | None:
    if path is None or rank == 0:
        return None if path is None else Path(path)
    return Path(path).with_suffix(f".rank{rank}{Path(path).suffix}")
