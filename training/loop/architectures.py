# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Backbones by name (paper: models table; vit_tiny is ours) and how a run builds or continues one."""

from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining, VISRegViTModel


# width, depth, heads, patch, drop path, projection dimension; the MLP is 4 x width unless named.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "vit_tiny": {"size": (192, 12, 3), "patch_size": 16, "drop_path_rate": 0.1, "projection_size": 128},
    "vit_small": {"size": (384, 12, 6), "patch_size": 8, "drop_path_rate": 0.1, "projection_size": 128},
    "vit_base": {"size": (768, 12, 12), "patch_size": 16, "drop_path_rate": 0.1, "projection_size": 256},
    "vit_large": {"size": (1024, 24, 16), "patch_size": 14, "drop_path_rate": 0.1, "projection_size": 384},
    "vit_huge": {"size": (1280, 32, 16), "patch_size": 14, "drop_path_rate": 0.2, "projection_size": 426},
    "vit_giant": {
        "size": (1408, 40, 16),
        "patch_size": 14,
        "drop_path_rate": 0.3,
        "projection_size": 469,
        "intermediate_size": 6144,
    },
}


def model_config(name: str, image_size: int, **overrides: Any) -> VISRegViTConfig:
    """The configuration of a named backbone; an override that is None keeps the name's own value.

    Raises:
        ValueError: the patch does not divide the image, or the heads the width.
    """
    values = dict(ARCHITECTURES[name])
    width, depth, heads = values.pop("size")
    values |= {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    values |= {key: value for key, value in overrides.items() if value is not None}
    values.setdefault("intermediate_size", 4 * values["hidden_size"])
    if overrides.get("hidden_size") is not None:
        values["intermediate_size"] = 4 * values["hidden_size"]
    return VISRegViTConfig(image_size=image_size, **values)


def build_model(config: PretrainedConfig) -> VISRegViTForPreTraining:
    """A freshly initialised model, from torch's global generator."""
    return VISRegViTForPreTraining(config)


def continue_model(
    checkpoint: str, projection_size: int | None, projector_hidden_size: int, drop_path_rate: float | None
) -> VISRegViTForPreTraining:
    """A model whose backbone is that of `checkpoint` and whose projector is the checkpoint's, or fresh if it has none.

    Raises:
        OSError: there is no such checkpoint.
    """
    config = VISRegViTConfig.from_pretrained(checkpoint)
    config.projector_hidden_size = projector_hidden_size
    if projection_size is not None:
        config.projection_size = projection_size
    if drop_path_rate is not None:
        config.drop_path_rate = drop_path_rate
    pretraining = Path(checkpoint) / "pretraining"
    if pretraining.is_dir():
        return VISRegViTForPreTraining.from_pretrained(pretraining, config=config)
    model = VISRegViTForPreTraining(config)
    backbone = VISRegViTModel.from_pretrained(checkpoint, config=config)
    model.base_model.load_state_dict(backbone.state_dict())
    return model
