# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One tiny configuration of each family of vision models that a run can start from: width 32, images of 32 px."""

import timm
import transformers
from torch import nn


_VIT = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
_PLAIN = _VIT | {"intermediate_size": 64}
_STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]}
_DECODER = {f"decoder_{name}": value for name, value in _PLAIN.items() if name not in ("image_size", "patch_size")}

# Class of the configuration, without its ending -> its arguments.
TRANSFORMERS = {
    "ViT": _PLAIN,
    "DeiT": _PLAIN,
    "Dinov2": _VIT | {"mlp_ratio": 2},
    "Dinov2WithRegisters": _VIT | {"mlp_ratio": 2, "num_register_tokens": 2},
    "DINOv3ViT": _PLAIN | {"num_register_tokens": 2},
    "DINOv3ConvNext": _STAGES,
    "IJepa": _PLAIN,
    "ViTMAE": _PLAIN | _DECODER,
    "Beit": _PLAIN,
    "SiglipVision": _PLAIN,
    "Swin": {"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1, 2], "num_heads": [1, 2, 4]}
    | {"window_size": 4},
    "ConvNext": _STAGES,
    "ResNet": _STAGES | {"embedding_size": 8, "layer_type": "basic"},
}
# Architecture of timm -> its arguments.
TIMM = {
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2},
    "resnet18": {"layers": [1, 1, 1, 1], "channels": [8, 16, 24, 32], "stem_width": 8},
    "convnext_atto": {"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]},
}
FAMILIES = [name for name in TRANSFORMERS if hasattr(transformers, f"{name}Config")]


def tiny_model(family: str) -> nn.Module:
    """A model with random weights, as AutoModel makes it."""
    config = getattr(transformers, f"{family}Config")(**TRANSFORMERS[family])
    return transformers.AutoModel.from_config(config).eval()


def tiny_timm(architecture: str) -> nn.Module:
    """A model of timm with random weights."""
    return timm.create_model(architecture, num_classes=0, **TIMM[architecture]).eval()
