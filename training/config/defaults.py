# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Defaults for one's own images: what a run without a recipe uses, chosen from the data and the device, with reasons.

These are ours, not the paper's, which has no recipe for small sets but Imagenette's (9,469 images, ViT-S/8, 128 px,
lambda 0.6, 800 epochs). What is chosen lands in recipe.yaml, and can be run again and changed there.
"""

import os
import statistics
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from modeling_visreg import VISRegViTConfig
from modeling_visreg.loading import local_directory, read_config

from ..data import Source
from ..run_folder import model_directory
from .architectures import check_crops, config_from
from .estimate import largest_micro_batch, step_cost
from .gpus import USABLE
from .options import PretrainOptions
from .schedule import divided_batch


FEW = 50_000  # images up to which a start is held on to; from there a fresh run is shorter too
SAMPLE = 32  # images whose size is looked at

# Makes the step of a run on the meta device, from its options and the model's configuration.
MetaStep = Callable[[PretrainOptions, VISRegViTConfig], nn.Module]


class Choice(NamedTuple):
    """One option, the value chosen for it, and why."""

    option: str
    value: Any
    reason: str


def fill_defaults(
    options: PretrainOptions,
    source: Source,
    device: torch.device,
    processes: int,
    *,
    meta_step: MetaStep | None = None,
    memory: int | None = None,
    width: float = 4,
    divisor: int | None = None,
) -> tuple[PretrainOptions, list[str]]:
    """Without a recipe: choose what was not given from the images and the device.

    Args:
        options: as given; `options.given` names what stays as it is.
        source: the images, from `open_stream`.
        device: of one process.
        processes: how many there are.
        meta_step: makes the step that the estimate of memory counts; needed with `memory`.
        memory: bytes of one process's device, from which the micro-batch follows; None leaves it alone (a CPU).
        width: bytes of an activation, from `activation_width`.
        divisor: pixels that divide the views of a backbone of another family; None for one of ours.

    Returns:
        The options with what was chosen, and what and why, as lines.
    """
    config = None
    if divisor is None and options.initialize_from:
        config = read_config(local_directory(model_directory(options.initialize_from)))
    elif divisor is None and options.from_scratch:
        config = config_from(options)
    choices = choose(source, device, processes, config.patch_size if config else divisor)
    choices = [*choices, *choose_for_start(options, choices, source.num_examples, device.type == "cuda")]
    choices = list({choice.option: choice for choice in choices}.values())  # the later takes the place of the earlier
    epochs = next((choice.value for choice in choices if choice.option == "epochs"), options.epochs)
    options, lines = _take(options, choices)
    options, more = _take(options, choose_intervals(options, epochs, source.num_examples, device.type == "cuda"))
    lines += more
    if memory is not None and meta_step is not None and "micro_batch_size" not in options.given:
        config = config if config and not options.from_scratch else config_from(options)
        options, more = _take(options, [choose_micro_batch(options, config, meta_step, processes, memory, width)])
        lines += more
    return options, ["no recipe given; chosen for these images and this device:", *lines]


def choose(source: Source, device: torch.device, processes: int, patch_size: int | None = None) -> list[Choice]:
    """Options for a run on the images of `source`; the caller keeps what the user gave.

    Args:
        source: from `open_stream`.
        device: of one process.
        processes: how many there are.
        patch_size: of the checkpoint that the run starts from, if it does; it brings the model.

    Raises:
        ValueError: not one image can be read.
    """
    count = source.num_examples
    sides = [min(image.size) for image, _label, _id in source.examples(limit=SAMPLE, seed=0)]
    if not sides:
        raise ValueError("not one of the images can be read")
    side = statistics.median(sides)
    on_gpu = device.type == "cuda"
    size, patch, size_reason = view_size(side, on_gpu)
    if patch_size is not None:
        patch = patch_size
        size = max(2, round(size / patch)) * patch
    model, model_reason = model_name(count, on_gpu)
    small = count is not None and count < 200_000
    local = max(patch, round(size * 3 / 7 / patch) * patch)
    batch = -(-batch_size(count, on_gpu) // processes) * processes
    if count is not None and batch > count >= processes:
        batch = count // processes * processes
    architecture = [
        Choice("model", model, model_reason),
        Choice("patch_size", patch, f"{(size // patch) ** 2} patches in a global view of {size} px"),
    ]
    return [
        *([] if patch_size is not None else architecture),
        Choice("global_size", size, size_reason),
        Choice("local_size", local, "three sevenths of the global view, as 96 of 224 in the paper"),
        Choice("num_global", 4 if on_gpu else 2, "the paper's 4" if on_gpu else "2 views cost half of 4"),
        Choice("num_local", 6 if on_gpu else 4, "the paper's 6" if on_gpu else "a CPU is slow"),
        Choice(
            "regularization_weight", 0.6 if small else 0.9, f"lambda for a {'small' if small else 'large'} set (paper)"
        ),
        Choice("global_batch_size", batch, "the terms are statistics over the batch; at most a quarter of the images"),
        Choice("learning_rate", 5e-4 if batch < 128 else 1e-3, "Imagenette's 1e-3, halved for a small batch"),
        *lengths(count, on_gpu),
        Choice("num_workers", min(8, max(1, (os.cpu_count() or 2) - 1)), f"{os.cpu_count()} CPU cores here"),
        *([] if on_gpu else [Choice("log_every", 3, "a CPU is slow: a sign of life within seconds")]),
    ]


def choose_for_start(options: PretrainOptions, choices: list[Choice], count: int | None, on_gpu: bool) -> list[Choice]:
    """What takes the place of `choices` for a run that starts from weights and has few images; [] for any other.

    What the weights know of more images is easily lost: the rate is a tenth of a fresh run's, as in the recipe
    continue_from_released, and falls with depth, and the run is shorter. Adapters take the rate of a fresh run: beside
    them the weights stay.
    """
    if not options.initialize_from or count is None or count >= FEW:
        return []
    fresh = next(choice.value for choice in choices if choice.option == "learning_rate")
    few = f"{count:,} images and a start that has seen more"
    length = Choice(
        "epochs", 100 if on_gpu else 10, f"{few}: an eighth of a fresh run's" if on_gpu else f"{few}; no GPU"
    )
    if options.lora_rank is not None:
        return [Choice("learning_rate", fresh, "adapters take a fresh run's: the weights beside them stay"), length]
    return [
        Choice("learning_rate", fresh / 10, f"{few}: a tenth of a fresh run's {fresh:g}"),
        Choice("layer_decay", 0.75, "the lower blocks move least, as BEiT and MAE are fine-tuned"),
        length,
    ]


def choose_intervals(options: PretrainOptions, epochs: float, count: int | None, on_gpu: bool) -> list[Choice]:
    """Warmup and steps between checkpoints, which follow from the length and the batch that were given or chosen.

    Args:
        options: with all others chosen.
        epochs: chosen, for which the warmup is meant: fewer that were given shorten it by the same factor.
        count: images, None where it is unknown.
        on_gpu: whether there is one.
    """
    warmup: float = 5 if on_gpu else 2
    reason = "the paper's" if on_gpu else f"of {epochs:g} epochs"
    if options.epochs < epochs:
        warmup, reason = warmup * options.epochs / epochs, f"the share that {warmup:g} of {epochs:g} epochs have"
    steps = options.max_steps or round(options.epochs * ((count or 0) // options.global_batch_size))
    every = min(PretrainOptions.save_every, max(1, steps // 10))
    return [
        *([Choice("warmup_epochs", warmup, reason)] if count is not None else []),
        Choice("save_every", every, f"steps between checkpoints; the run has {steps}"),
    ]


def choose_micro_batch(
    options: PretrainOptions,
    config: VISRegViTConfig,
    meta_step: MetaStep,
    processes: int,
    memory: int,
    width: float,
) -> Choice:
    """The largest micro-batch that is estimated to fit into `memory` bytes; `width`: bytes of an activation."""
    check_crops(config.patch_size, options)
    images = divided_batch(options.global_batch_size, processes)
    step, resolutions = meta_step(options, config), options.resolutions()
    micro = largest_micro_batch(step, resolutions, images, width, USABLE * memory, processes)
    need = step_cost(step, resolutions, images, micro or 1, width, processes).total_bytes
    reason = f"of {images} on a device; estimated to need {need / 2**30:.1f} of its {memory / 2**30:.0f} GiB"
    reason += "" if micro else ", which will not fit: a smaller model or view will"
    return Choice("micro_batch_size", micro or 1, reason)


def view_size(side: float, on_gpu: bool) -> tuple[int, int, str]:
    """Pixels of a global view, of a patch, and why."""
    seen = f"the shorter side of the images is {side:g} px (median of {SAMPLE})"
    for least, size, patch in ((160, 224, 16), (96, 128, 8), (48, 64, 8)):
        if side >= least:
            return (
                (size, patch, seen) if on_gpu else (min(size, 96), 16 if size >= 128 else 8, f"{seen}; a CPU is slow")
            )
    return (32, 4, seen) if side >= 24 else (16, 2, seen)


def model_name(count: int | None, on_gpu: bool) -> tuple[str, str]:
    """The architecture, and why."""
    if not on_gpu:
        return "vit_tiny", "no GPU"
    if count is None or count >= 500_000:
        return "vit_base", "half a million images or more"
    return "vit_small", "fewer than half a million images"


def batch_size(count: int | None, on_gpu: bool) -> int:
    """The largest power of two up to 256 (64 on a CPU) that is at most a quarter of the images, and at least 8; of
    fewer than 8 images, the largest that they fill."""
    batch = 256 if on_gpu else 64
    while count is not None and batch > 1 and batch > max(min(8, count), count // 4):
        batch //= 2
    return batch


def lengths(count: int | None, on_gpu: bool) -> list[Choice]:
    """Epochs, or a number of steps where the size of the data is unknown."""
    if count is None:
        return [Choice("max_steps", 100_000 if on_gpu else 1000, "the number of images is unknown")]
    if not on_gpu:
        return [Choice("epochs", 30, "no GPU: a first result today")]
    epochs = 100 if count >= 500_000 else 400 if count >= 50_000 else 800
    return [Choice("epochs", epochs, f"{count:,} images (paper: 100 for ImageNet, 800 for Imagenette)")]


def _shown(value: Any) -> str:
    """A value in a column of nine: 0.13333333333333333 as 0.1333."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _take(options: PretrainOptions, choices: list[Choice]) -> tuple[PretrainOptions, list[str]]:
    """The options with those choices that were not given, and a line for each."""
    taken = [choice for choice in choices if choice.option not in options.given]
    lines = [f"  {choice.option:<22} {_shown(choice.value):<9} {choice.reason}" for choice in taken]
    return options.replace(**{choice.option: choice.value for choice in taken}), lines
