# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""From the data to the views of a step: cropped in the workers, colored on the device one batch ahead.

V views, B images of a rank; views of one resolution are (V_r, B, C, H, W).
"""

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict

import torch

from ..backbones import wrap_backbone
from ..config import PretrainOptions
from ..data import ColorOptions, DeviceAugment, MultiCrop, MultiViewBatch, PretrainingLoader, TorchvisionReference
from ..option import take
from ..seeding import torch_generator
from ..threads import single_core_threads
from ..triton_support import runs_triton
from .run import Run


Normalization = dict[str, tuple[float, ...]]  # mean and std, a value for each channel
Views = Callable[[list[torch.Tensor], int], list[torch.Tensor]]


def build_multi_crop(
    options: PretrainOptions, normalization: Normalization | None = None
) -> MultiCrop | TorchvisionReference:
    """What the workers do to an image; `normalization` is ImageNet's by default, here and below."""
    crops = take(MultiCrop, options)
    if options.augment_backend == "device":
        return crops
    return TorchvisionReference(crops, **asdict(take(ColorOptions, options, **(normalization or {}))))


def build_augment(options: PretrainOptions, normalization: Normalization | None = None) -> DeviceAugment:
    """The colors of a batch, on the device."""
    return DeviceAugment(**asdict(take(ColorOptions, options, **(normalization or {}))))


def normalization_of(run: Run) -> Normalization:
    """What the backbone's image processor normalizes by: the features that are saved are those that were trained."""
    backbone = wrap_backbone(run.model)
    return {"mean": backbone.mean, "std": backbone.std}


def build_loader(run: Run, positions: list[dict] | None = None) -> PretrainingLoader:
    """This rank's endless batches of uint8 views, from `positions` (one a rank; None for the beginning) on."""
    options, rank = run.options, run.accelerator.process_index
    return PretrainingLoader(
        run.source,
        build_multi_crop(options, normalization_of(run)),
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
    augment, accelerator = build_augment(run.options, normalization_of(run)), run.accelerator
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
        self.works_ahead = device.type == "cpu" or runs_triton(device)
        self.outputs: dict[tuple, list[torch.Tensor]] = {}

    def __call__(self, views: list[torch.Tensor], step: int) -> list[torch.Tensor]:
        """uint8 views, one tensor (V_r, B, C, H, W) a resolution, into normalized float views of the same shapes; what
        the torchvision backend has made in the workers is float already, and only moved. Where colors are made ahead,
        the memory of step n is used again in step n + 2.
        """
        groups = [group.to(self.device, non_blocking=True) for group in views]
        if groups[0].dtype != torch.uint8:
            return groups
        draws = torch_generator("color", self.seed, step, self.rank)  # of the CPU: the same colors on every device
        crops = [group.flatten(0, 1) for group in groups]
        colored = self.augment.color(crops, draws, self.buffers(crops, step) if self.works_ahead else None)
        return [made.unflatten(0, group.shape[:2]) for made, group in zip(colored, groups, strict=True)]

    def buffers(self, crops: list[torch.Tensor], step: int) -> list[torch.Tensor]:
        """One of two sets of memory for the colored crops, in turns."""
        key = (step % 2, *(group.shape for group in crops))
        if key not in self.outputs:
            self.outputs[key] = [torch.empty(group.shape, device=self.device) for group in crops]
        return self.outputs[key]


class SideStream:
    """A CUDA stream beside the model's, on which a thread makes views while the model works on the last ones.

    The views of step n + 1 go into the memory of those of step n - 1, which the model's stream may still have to read:
    the gradient of the patch embedding takes the pixels again. So the side stream waits for all that the model's had
    been given when step n was asked for. The whole of step n - 1 is, its backward and its update included.

    Args:
        device: of the model.
    """

    def __init__(self, device: torch.device):
        self.device, self.stream = device, torch.cuda.Stream(device)

    def after_the_model(self, make: Views) -> Views:
        """`make` as a thread runs it: on this stream, behind what the model's stream has been given up to now."""
        given = torch.cuda.current_stream(self.device).record_event()

        def made(views: list[torch.Tensor], step: int) -> list[torch.Tensor]:
            with torch.cuda.stream(self.stream):
                self.stream.wait_event(given)
                return make(views, step)

        return made

    def hand_over(self, views: list[torch.Tensor]) -> None:
        """Lets the model's stream wait for views whose making has been enqueued, and nothing after it."""
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        for group in views:
            group.record_stream(current)  # it was allocated for the side stream, and may be freed before it is read


class ViewBatches:
    """The loader's batches with colored views, one a step.

    A thread of its own colors them, one batch ahead, while the model works on the last: on a CPU, and on a stream of
    its own on a GPU that does it in a few kernels. Elsewhere they are colored when their step comes: many short
    operations do not share the interpreter's lock well among threads, but let the long ones of the model run beside
    them.

    Args:
        loader: of the run, at the position of `step`.
        augment: colors the views.
        step: that the first batch belongs to.
        end: step for which nothing is made ahead any more: a server that fails then shall not end a run that is over.
    """

    def __init__(self, loader: PretrainingLoader, augment: StepAugment, step: int, end: int):
        self.loader, self.augment, self.step, self.end = loader, augment, step, end
        self.ahead = single_core_threads(1, "visreg-views") if augment.works_ahead else None
        on_gpu = augment.works_ahead and augment.device.type == "cuda"
        self.side = SideStream(augment.device) if on_gpu else None
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
            if self.side is not None:
                self.side.hand_over(views)
            self.waiting = self.fetch(self.step + 1) if self.step + 1 < self.end else None
        self.step += 1
        return batch._replace(views=views)

    def fetch(self, step: int) -> tuple[MultiViewBatch, Future, dict]:
        """The loader's next batch, whose coloring is begun, and the position after it."""
        batch = next(self.loader)
        color = self.augment if self.side is None else self.side.after_the_model(self.augment)
        return batch, self.ahead.submit(color, batch.views, step), self.loader.position()

    def position(self) -> dict:
        """The position after the last batch handed out; one that is made ahead does not count."""
        return self.handed_out

    def close(self) -> None:
        """Stops the workers and the thread."""
        self.loader.close()
        if self.ahead is not None:
            self.ahead.shutdown()
