# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""From the loader's batches to the views of a step: colours are put on where the model is.

V views, B images of a rank; views of one resolution are (V_r, B, C, H, W).
"""

import time
from concurrent.futures import Future

import torch

from ..data import DeviceAugment, MultiViewBatch, PretrainingLoader
from ..threads import single_core_threads
from .randomness import AUGMENTATION, generator


class StepAugment:
    """Colours the crops of a batch on the device; the draws are a function of (seed, step, rank).

    Args:
        augment: the operations and their probabilities.
        device: of the model.
        seed, rank: of the run and of this process.
    """

    def __init__(self, augment: DeviceAugment, device: torch.device, seed: int, rank: int):
        self.augment, self.device, self.seed, self.rank = augment, device, seed, rank
        self.outputs: dict[tuple, torch.Tensor] = {}

    def __call__(self, views: list[torch.Tensor], step: int) -> list[torch.Tensor]:
        """uint8 views, one tensor (V_r, B, C, H, W) a resolution, into normalised float views of the same shapes; what
        the torchvision backend has made in the workers is float already, and only moved. On a CPU the memory of step
        n is used again in step n + 2.
        """
        draws = generator("cpu", self.seed, step, self.rank, AUGMENTATION)  # the same crops' colours on every device
        return [self.colour(group.to(self.device, non_blocking=True), draws, step) for group in views]

    def colour(self, group: torch.Tensor, draws: torch.Generator, step: int) -> torch.Tensor:
        if group.dtype != torch.uint8:
            return group
        crops, place = group.flatten(0, 1), (group.shape, step % 2)
        if self.device.type == "cpu" and place not in self.outputs:
            self.outputs[place] = torch.empty(crops.shape)
        return self.augment(crops, draws, self.outputs.get(place)).unflatten(0, group.shape[:2])


class ViewBatches:
    """The loader's batches with coloured views, one a step.

    A GPU colours them when their step comes, in a fraction of it. On a CPU a thread of its own does, one batch ahead,
    while the model works on the last: many short operations do not share the interpreter's lock well among threads,
    but let the long ones of the model run beside them.

    Args:
        loader: of the run, at the place of `step`.
        augment: puts the colours on.
        step: that the first batch belongs to.
        end: step for which nothing is made ahead any more: a server that fails then shall not end a run that is over.
    """

    def __init__(self, loader: PretrainingLoader, augment: StepAugment, step: int, end: int):
        self.loader, self.augment, self.step, self.end = loader, augment, step, end
        self.ahead = single_core_threads(1, "visreg-views") if augment.device.type == "cpu" else None
        self.waiting: tuple[MultiViewBatch, Future, dict] | None = None
        self.waited = 0.0
        self.place = loader.position()

    @property
    def wait_seconds(self) -> float:
        """Spent waiting for the workers, and for colours that are put on ahead, since the start."""
        return self.loader.wait_seconds + self.waited

    def __next__(self) -> MultiViewBatch:
        """The batch of the next step, its views normalised float32 on the device.

        Raises:
            BadDataError, StreamLostError: as the loader does.
        """
        if self.ahead is None:
            batch = next(self.loader)
            views, self.place = self.augment(batch.views, self.step), self.loader.position()
        else:
            batch, coloured, self.place = self.waiting or self.fetch(self.step)
            started = time.perf_counter()
            views = coloured.result()
            self.waited += time.perf_counter() - started
            self.waiting = self.fetch(self.step + 1) if self.step + 1 < self.end else None
        self.step += 1
        return batch._replace(views=views)

    def fetch(self, step: int) -> tuple[MultiViewBatch, Future, dict]:
        """The loader's next batch, whose colours are begun, and the place after it."""
        batch = next(self.loader)
        return batch, self.ahead.submit(self.augment, batch.views, step), self.loader.position()

    def position(self) -> dict:
        """The place after the last batch handed out; one that is made ahead does not count."""
        return self.place

    def close(self) -> None:
        """Stops the workers and the thread."""
        self.loader.close()
        if self.ahead is not None:
            self.ahead.shutdown()
