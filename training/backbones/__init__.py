# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F401
"""What turns images into features, behind one interface; evaluation, analyses, the end of a run and its steps use it.

    backbone = wrap_backbone(run.model)      # of a model in training: the network without its projector
    backbone.module                          # the native network: a VISRegViTModel, a Dinov2Model, timm's ResNet
    backbone.encode(pixels, probed)          # (B, d), with its gradient, and what the online probe reads
    backbone.blocks()                        # the L blocks, first to last; [] where they are not known
    backbone.layer_of(name)                  # of a parameter of `module`: 0 embedding, 1..L blocks, L + 1 final norm

interface.py              Backbone: tokens, features, patch maps, attention, and how they are pooled
transformers_backbone.py  what AutoModel opens, our checkpoints included
timm_backbone.py          what timm builds
raw_checkpoint.py         a backbone of another family with its projector, as runs write it
options.py                which model, and how much of it learns
adapting.py               rates by depth, frozen blocks, adapters of low rank
resolution.py             the position embedding for another size of images
visreg.py                 our ViT in training: built anew, or continued from a checkpoint
adapted.py                any other backbone in training: where it comes from, whether it will do, its projector
opening.py                a Backbone from a name, or around a model in memory
"""

from typing import TYPE_CHECKING

from ..lazy import face


if TYPE_CHECKING:
    from .adapted import AdaptedModel, Start, check_sizes, find_start, freeze_unused, has_batch_norm
    from .adapting import (
        adapt,
        add_lora,
        depth_rates,
        freeze_blocks,
        has_lora,
        layer_rates,
        merged,
        plain_name,
        unmerged,
        write_adapter,
    )
    from .interface import Backbone, Tokens, layer_numbers
    from .opening import open_backbone, save_with_projector, wrap_backbone
    from .options import POOLINGS, AdaptOptions, BackboneOptions
    from .resolution import change_native_size
    from .timm_backbone import TimmBackbone
    from .transformers_backbone import TransformersBackbone, transformers_blocks
    from .visreg import build_pretraining_model, continue_pretraining_model


# File -> its public names, imported when they are used: what only reads options needs no torch.
_NAMES = {
    "adapting": (
        "adapt",
        "add_lora",
        "depth_rates",
        "freeze_blocks",
        "has_lora",
        "layer_rates",
        "merged",
        "plain_name",
        "unmerged",
        "write_adapter",
    ),
    "adapted": ("AdaptedModel", "Start", "check_sizes", "find_start", "freeze_unused", "has_batch_norm"),
    "interface": (
        "Backbone",
        "Tokens",
        "layer_numbers",
    ),
    "options": ("POOLINGS", "AdaptOptions", "BackboneOptions"),
    "opening": (
        "open_backbone",
        "save_with_projector",
        "wrap_backbone",
    ),
    "resolution": ("change_native_size",),
    "timm_backbone": ("TimmBackbone",),
    "transformers_backbone": ("TransformersBackbone", "transformers_blocks"),
    "visreg": (
        "build_pretraining_model",
        "continue_pretraining_model",
    ),
}
__all__ = sorted(name for names in _NAMES.values() for name in names)
__getattr__, __dir__ = face(__name__, _NAMES)
