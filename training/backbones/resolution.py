# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A trained ViT for images of another size: its position embedding follows."""

import torch
from torch import nn

from modeling_visreg import VISRegViTForPreTraining


@torch.no_grad()
def change_native_size(model: nn.Module, size: int) -> None:
    """Resamples the learned position embedding to the grid of images of `size` pixels a side, in place.

    At that size the features are what they were, since the model resamples to it anyway; from here on the new grid
    learns a value for each of its positions, and the model's image processor crops to the new size.

    Raises:
        ValueError: the patch does not divide the size, or the network is of another family.
    """
    if not isinstance(model, VISRegViTForPreTraining):
        raise ValueError("image_size: the network is of another family and keeps its grid: leave image_size out")
    patch = model.config.patch_size
    if size % patch:
        low = max(patch, size // patch * patch)
        raise ValueError(f"image_size {size} is not divisible by the patch of {patch}: use {low} or {low + patch}")
    embeddings, side = model.vit.embeddings, size // patch
    positions = embeddings.interpolate_pos_encoding(side, side).clone()
    embeddings.position_embeddings = nn.Parameter(positions)
    embeddings.grid_size = (side, side)
    model.config.image_size = size
