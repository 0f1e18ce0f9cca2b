# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What a step will cost, counted by running it on the meta device: no memory, no arithmetic, real operators.

V views, B images; everything here is an estimate of time and memory, and an exact count of operations.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..compat import is_activation_checkpointing
from ..objective import VISRegObjective


if TYPE_CHECKING:
    from modeling_visreg import VISRegViTForPreTraining


@dataclass(frozen=True)
class Cost:
    """Of one rank's step. FLOPs count a multiply-add as 2; memory is in bytes."""

    parameters: int
    tokens: int
    flops: int
    state_bytes: int
    activation_bytes: int
    objective_bytes: int
    view_bytes: int

    @property
    def total_bytes(self) -> int:
        return self.state_bytes + self.activation_bytes + self.objective_bytes + self.view_bytes


def activation_width(bf16: bool, compiled: bool) -> float:
    """Bytes for each value that autograd keeps of an eager step in float32, of which 4 in float32.

    Under bf16 autocast normalizations and residuals stay in float32 and casts are kept beside them; compiled blocks
    keep less. Both are measured, on an H100: ViT-B/16, 4 x 224 + 6 x 96 px, 64 images, 26.05 GB and 22.5 GB at the
    peak. Of 128 images in compiled blocks, 43.5 GB were measured and 43.4 are estimated. Other models, and activation
    checkpointing, were not measured.

    Args:
        bf16: autocast.
        compiled: the blocks are, `--compile blocks`.
    """
    if not bf16:
        return 4.0
    return 1.86 if compiled else 2.18


def step_cost(
    step: nn.Module, resolutions: list[tuple[int, int]], images: int, micro: int, bytes_each: float, ranks: int = 1
) -> Cost:
    """The cost of a step of `images` images, `micro` at once.

    Args:
        step: a `PretrainingStep` on the meta device.
        resolutions: (views, pixels of a side) of each, global first.
        images: B of the rank.
        micro: images whose activations are held at once.
        bytes_each: of an activation, from `activation_width`.
        ranks: N; every rank projects the images of all, and sorts its part of the slices.
    """
    model, objective = cast("VISRegViTForPreTraining", step.model), cast(VISRegObjective, step.objective)
    patch = model.config.patch_size
    tokens = sum(count * (1 + (side // patch) ** 2) for count, side in resolutions)
    # Two counts tell what an image adds from what a step costs anyhow (the position embedding is resampled once).
    (flops, saved), (more_flops, more_saved) = [count_step(model, make_views(model, resolutions, n)) for n in (1, 2)]
    flops += (more_flops - flops) * (images - 1)
    saved += (more_saved - saved) * (micro - 1)
    if micro < images:
        flops += count_forward(model, make_views(model, resolutions, 1)) * images  # features are computed twice
    count = sum(parameter.numel() for parameter in model.parameters())
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    dimension, slices = model.config.projection_size, objective.num_slices
    all_views = sum(number for number, _side in resolutions)
    sliced = 6 * all_views * images * dimension * slices  # two products, the second in the gradient, both 2 FLOPs
    projector = sum(parameter.numel() for parameter in model.projector.parameters())
    projected = 6 * projector * all_views * images * (ranks - 1)  # this rank's own images are in the count above
    hidden = 5 * model.config.projector_hidden_size  # what its two hidden layers keep, in float32
    features = 4 * all_views * images * ranks * (4 * model.config.hidden_size + 4 * dimension + hidden)
    return Cost(
        parameters=count,
        tokens=tokens * images,
        flops=flops + sliced + projected,
        state_bytes=4 * count + 12 * learning,  # weight; gradient and two moments of what learns; 4 bytes each
        activation_bytes=round((saved + checkpointed(model, tokens) * micro) * bytes_each / 4),
        objective_bytes=features + 4 * dimension * slices,
        view_bytes=bytes_of_views(resolutions, images, model.config.num_channels),
    )


def bytes_of_views(resolutions: list[tuple[int, int]], images: int, channels: int) -> int:
    """What views that a GPU colors one batch ahead take: two sets in float32, in turns; the crops as they come, in
    uint8; and one resolution in float32 on its way into the blur.
    """
    values = [count * images * channels * side**2 for count, side in resolutions]
    return (2 * 4 + 1) * sum(values) + 4 * max(values)


def make_views(
    model: "VISRegViTForPreTraining", resolutions: list[tuple[int, int]], images: int
) -> list[torch.Tensor]:
    """Views (V_r, images, C, H, W) without content, one tensor a resolution."""
    channels = model.config.num_channels
    return [torch.empty(count, images, channels, side, side, device="meta") for count, side in resolutions]


def count_step(model: "VISRegViTForPreTraining", views: list[torch.Tensor]) -> tuple[int, int]:
    """FLOPs of forward and backward of the backbone and projector, and bytes that autograd keeps in between."""
    weights = [parameter.untyped_storage() for parameter in model.parameters()]
    held: dict[int, torch.UntypedStorage] = {}  # a storage is one object as long as it is held

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        held[id(storage)] = storage
        return tensor

    model.train()
    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            features = torch.cat([model.encode(group) for group in views])
            projections = model.projector.eval()(features.flatten(0, 1))
        projections.sum().backward()
    model.zero_grad(set_to_none=True)
    for storage in weights:
        held.pop(id(storage), None)
    return counter.get_total_flops(), sum(storage.nbytes() for storage in held.values())


def checkpointed(model: "VISRegViTForPreTraining", tokens: int) -> int:
    """Bytes (float32) of the blocks' inputs, which are what activation checkpointing keeps of an image."""
    if not is_activation_checkpointing(model):
        return 0
    return 4 * tokens * model.config.hidden_size * model.config.num_hidden_layers


def count_forward(model: "VISRegViTForPreTraining", views: list[torch.Tensor]) -> int:
    """FLOPs of the backbone's forward."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for group in views:
            model.encode(group)
    return counter.get_total_flops()


def largest_micro_batch(
    step: nn.Module,
    resolutions: list[tuple[int, int]],
    images: int,
    bytes_each: float,
    room: float,
    ranks: int = 1,
) -> int | None:
    """The largest micro-batch, all or a power of two, that fits into `room` bytes, or None if none does."""
    sizes = [images]
    while sizes[-1] > 1:
        sizes.append(1 << ((sizes[-1] - 1).bit_length() - 1))
    one = step_cost(step, resolutions, images, 1, bytes_each, ranks)
    fixed = one.total_bytes - one.activation_bytes
    return next((size for size in sizes if fixed + size * one.activation_bytes <= room), None)
