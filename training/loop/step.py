# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One pretraining step: crops of every resolution in, the terms of the objective out.

V views, B images of this rank, N ranks, d width of the backbone, D projection dimension, K slices.

The terms couple the batch, so the whole batch of all ranks takes part in them. Features are gathered with their
gradient, and every rank projects the whole batch and takes the objective on it: the projector's batch norm then sees
the whole batch without SyncBN, on any device, and each rank takes its part of the slices, so that no sorting is
repeated.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..backbones import wrap_backbone
from ..objective import VISRegObjective, VISRegTerms, gather_batch
from .packed import encode_packed


class StepOutput(NamedTuple):
    """`terms` carries the graph; `projections` (V, N*B, D) and `features` (V, N*B, d) are detached.

    `blocks` (Vg, N*B, 2d), detached too, is what the online probe of the paper reads: the CLS tokens of the last two
    blocks of the global views; None unless they are asked for.
    """

    terms: VISRegTerms
    projections: torch.Tensor
    features: torch.Tensor
    blocks: torch.Tensor | None = None


class PretrainingStep(nn.Module):
    """Backbone a resolution at a time -> gather -> projector on the whole batch -> objective. The module to prepare.

    Args:
        model: a `VISRegViTForPreTraining`.
        num_global: how many of the views are global; they come first.
        objective: a `VISRegObjective`; its `statistics` says whether the batch is gathered ("global") or not.
        micro_batch_size: images whose activations are held at once (default: all). Ordinary gradient accumulation
            would change the method, since the terms couple the batch. Here forward keeps only the features of each
            micro-batch, and backward computes them a second time, with the same random state, when their gradient is
            known: loss and gradient are those of the undivided batch.
        probed: return `blocks` too, which changes nothing else.
        packed: all resolutions go through each block at once (packed.py), unless there are micro-batches.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: VISRegObjective,
        num_global: int,
        micro_batch_size: int | None = None,
        probed: bool = False,
        packed: bool = False,
    ):
        super().__init__()
        self.num_global = num_global
        self.probed = probed
        self.packed = packed
        self.model = model
        self.backbone = wrap_backbone(model)
        self.objective = objective
        self.micro_batch_size = micro_batch_size

    def forward(self, views: list[torch.Tensor], step: int) -> StepOutput:
        """`views`: one tensor a resolution, (V_r, B, C, H, W), global first; `step` draws the directions."""
        features, blocks = self.encode_views(views)
        gathered = self.objective.statistics == "global"
        if gathered:
            features = gather_batch(features)
            blocks = None if blocks is None else gather_batch(blocks)
        projections = self.model.project(features, [len(group) for group in views])
        terms = self.objective(projections, self.num_global, step=step, gathered=gathered)
        terms = VISRegTerms(*(value.clone() for value in terms))  # FSDP warns of outputs that are views
        return StepOutput(terms, projections.detach(), features.detach(), blocks)

    def encode_views(self, views: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Features (V, B, d) and `blocks` (Vg, B, 2d) of all views."""
        images = views[0].shape[1]
        if self.packed and self.undivided(images):
            features, blocks = encode_packed(self.model.vit, [group.flatten(0, 1) for group in views])
            features, blocks = features.unflatten(0, (-1, images)), blocks.unflatten(0, (-1, images))
        else:
            encoded = [self.encode(group) for group in views]
            features, blocks = (torch.cat(column) for column in zip(*encoded, strict=True))
        return features, blocks[: self.num_global] if self.probed else None

    def undivided(self, images: int) -> bool:
        """Whether the activations of all images are held at once."""
        return self.micro_batch_size is None or self.micro_batch_size >= images

    def encode(self, views: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (V_r, B, d) and `blocks` (V_r, B, 2d, or 0) of one resolution (V_r, B, C, H, W), a micro-batch at a
        time if one is set.
        """
        rows = views.flatten(0, 1)
        if self.undivided(views.shape[1]):
            encoded = [self.encode_rows(rows)]
        else:
            parts = rows.split(self.micro_batch_size * len(views))
            again = torch.is_grad_enabled()
            encoded = [
                checkpoint(self.encode_rows, part, use_reentrant=False) if again else self.encode_rows(part)
                for part in parts
            ]
        features, blocks = (torch.cat(column).unflatten(0, views.shape[:2]) for column in zip(*encoded, strict=True))
        return features, blocks

    def encode_rows(self, rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (rows, d) and `blocks` (rows, 2d, or 0) of crops (rows, C, H, W) of one resolution."""
        return self.backbone.encode(rows, self.probed)
