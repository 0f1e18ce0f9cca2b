# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One pretraining step: crops of every resolution in, the terms of the objective out.

V views, B images of this rank, N ranks, d width of the backbone, D projection dimension, K slices.

The terms couple the batch, so the whole batch of all ranks takes part in them. Features are gathered with their
gradient, and every rank projects the whole batch and takes the objective on it: the projector's batch norm then sees
the whole batch without SyncBN, on any device, and the slices are shared out, so that no sorting is repeated.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..objective import VISRegObjective, VISRegTerms, gather_batch


class StepOutput(NamedTuple):
    """`terms` carries the graph; `projections` (V, N*B, D) and `features` (V, N*B, d) are detached."""

    terms: VISRegTerms
    projections: torch.Tensor
    features: torch.Tensor


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
    """

    def __init__(
        self, model: nn.Module, objective: VISRegObjective, num_global: int, micro_batch_size: int | None = None
    ):
        super().__init__()
        self.num_global = num_global
        self.model = model
        self.objective = objective
        self.micro_batch_size = micro_batch_size

    def forward(self, views: list[torch.Tensor], step: int) -> StepOutput:
        """`views`: one tensor a resolution, (V_r, B, C, H, W), global first; `step` draws the directions."""
        features = torch.cat([self.encode(group) for group in views])
        gathered = self.objective.statistics == "global"
        if gathered:
            features = gather_batch(features)
        projections = self.model.project(features, [len(group) for group in views])
        terms = self.objective(projections, self.num_global, step=step, gathered=gathered)
        return StepOutput(terms, projections.detach(), features.detach())

    def encode(self, views: torch.Tensor) -> torch.Tensor:
        """Features (V_r, B, d) of one resolution (V_r, B, C, H, W), a micro-batch at a time if one is set."""
        if self.micro_batch_size is None or self.micro_batch_size >= views.shape[1]:
            return self.model.encode(views)
        rows = views.flatten(0, 1).split(self.micro_batch_size * len(views))
        if torch.is_grad_enabled():
            features = [checkpoint(self.encode_rows, part, use_reentrant=False) for part in rows]
        else:
            features = [self.encode_rows(part) for part in rows]
        return torch.cat(features).unflatten(0, views.shape[:2])

    def encode_rows(self, rows: torch.Tensor) -> torch.Tensor:
        """Features (rows, d) of crops (rows, C, H, W) of one resolution."""
        return self.model.encode(rows.unsqueeze(0)).squeeze(0)
