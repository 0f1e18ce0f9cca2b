# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""From the data to the views of a step: cropped in the workers, colored on the device, one batch ahead on a CPU.

V views, B images of a rank; views of one resolution are (V_r, B, C, H, W).
"""

import time
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import torch

from ..config import PretrainOptions
from ..data import ColorOptions, DeviceAugment, MultiCrop, MultiViewBatch, PretrainingLoader, TorchvisionReference
from ..option import take
from ..seeding import torch_generator
from ..threads import single_core_threads
from .run import Run


def build_multi_crop(options: PretrainOptions) -> MultiCrop | TorchvisionReference:
    """What the workers do to an image."""
    crops = take(MultiCrop, options)
    if options.augment_backend == "device":
        return crops
    return TorchvisionReference(crops, **asdict(take(ColorOptions, options)))


def build_augment(options: PretrainOptions) -> DeviceAugment:
    """The colors of a batch, on the device."""
    return DeviceAugment(**asdict(take(ColorOptions, options)))


def build_loader(run: Run, positions: list[dict] | None = None) -> PretrainingLoader:
    """This rank's endless batches of uint8 views, from `positions` (one a rank; None for the beginning) on."""
    options, rank = run.options, run.accelerator.process_index
    return PretrainingLoader(
        run.source,
        build_multi_crop(options),
        batch_size=run.schedule.rank_batch_size,
        seed=options.seed,
        rank=rank,
        world_size=run.accelerator.num_processes,
        num_workers=options.num_workers,
        position=positions[rank] if positions else None,
        max_bad_share=options.max_bad_share,
        skipped_path=run.folder.skipped,
    )


def build_step_augment(run: Run) -> "StepAugment":
    """Colors for the views of this rank."""
    augment, accelerator = build_augment(run.options), run.accelerator
    return StepAugment(augment, accelerator.device, run.options.seed, accelerator.process_index)


def build_batches(run: Run, positions: list[dict] | None = None, start: int = 0) -> "ViewBatches":
    """This rank's endless batches of colored views for the updates from `start` on."""
    return ViewBatches(build_loader(run, positions), build_step_augment(run), start, run.schedule.total_steps)


class StepAugment:
    """Colors the crops of a batch on the device; the draws are a function of (seed, step, rank).

    Args:
        augment: the operations and their probabilities.
        device: of the model.
        seed, rank: of the run and of this process.
    """

    def __init__(self, augment: DeviceAugment, device: torch.device, seed: int, rank: int):
        self.augment, self.device, self.seed, self.rank = augment, device, seed, rank
        self.outputs: dict[Any, torch.Tensor] = {}

    def __call__(self, views: list[torch.Tensor], step: int) -> list[torch.Tensor]:
        """uint8 views, one tensor (V_r, B, C, H, W) a resolution, into normalized float views of the same shapes; what
        the torchvision backend has made in the workers is float already, and only moved. On a CPU the memory of step
        n is used again in step n + 2.
        """
        draws = torch_generator("color", self.seed, step, self.rank)  # of the CPU: the same colors on every device
        return [self.color(group.to(self.device, non_blocking=True), draws, step) for group in views]

    def color(self, group: torch.Tensor, draws: torch.Generator, step: int) -> torch.Tensor:
        """One resolution; `draws` goes on from one to the next."""
        if group.dtype != torch.uint8:
            return group
        crops, buffer = group.flatten(0, 1), (group.shape, step % 2)
        if self.device.type == "cpu" and buffer not in self.outputs:
            self.outputs[buffer] = torch.empty(crops.shape)
        return self.augment(crops, draws, self.outputs.get(buffer)).unflatten(0, group.shape[:2])


class ViewBatches:
    """The loader's batches with colored views, one a step.

    A GPU colors them when their step comes, in a fraction of it. On a CPU a thread of its own does, one batch ahead,
    while the model works on the last: many short operations do not share the interpreter's lock well among threads,
    but let the long ones of the model run beside them.

    Args:
        loader: of the run, at the position of `step`.
        augment: colors the views.
        step: that the first batch belongs to.
        end: step for which nothing is made ahead any more: a server that fails then shall not end a run that is over.
    """

    def __init__(self, loader: PretrainingLoader, augment: StepAugment, step: int, end: int):
        self.loader, self.augment, self.step, self.end = loader, augment, step, end
        self.ahead = single_core_threads(1, "visreg-views") if augment.device.type == "cpu" else None
        self.waiting: tuple[MultiViewBatch, Future, dict] | None = None
        self.waited = 0.0
        self.handed_out = loader.position()

    @property
    def wait_seconds(self) -> float:
        """Spent waiting for the workers, and for views that are colored ahead, since the start."""
        return self.loader.wait_seconds + self.waited

    def __next__(self) -> MultiViewBatch:
        """The batch of the next step, its views normalized float32 on the device.

        Raises:
            BadDataError, StreamLostError: as the loader does.
        """
        if self.ahead is None:
            batch = next(self.loader)
            views, self.handed_out = self.augment(batch.views, self.step), self.loader.position()
        else:
            batch, colored, self.handed_out = self.waiting or self.fetch(self.step)
            started = time.perf_counter()
            views = colored.result()
            self.waited += time.perf_counter() - started
            self.waiting = self.fetch(self.step + 1) if self.step + 1 < self.end else None
        self.step += 1
        return batch._replace(views=views)

    def fetch(self, step: int) -> tuple[MultiViewBatch, Future, dict]:
        """The loader's next batch, whose coloring is begun, and the position after it."""
        batch = next(self.loader)
        return batch, self.ahead.submit(self.augment, batch.views, step), self.loader.position()

    def position(self) -> dict:
        """The position after the last batch handed out; one that is made ahead does not count."""
        return self.handed_out

    def close(self) -> None:
        """Stops the workers and the thread."""
        self.loader.close()
        if self.ahead is not None:
            self.ahead.shutdown()
