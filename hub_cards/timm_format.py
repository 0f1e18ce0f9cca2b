# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A checkpoint directory that timm reads too: `timm.create_model("hf-hub:org/name", pretrained=True)`.

Weights under timm's names stand in timm/model.safetensors, with a config.json of their own beside them, so that
`timm.create_model("local-dir:FOLDER/timm", pretrained=True)` reads a copy. The repository's own config.json, where
timm looks on the Hub, gets timm's keys beside those of transformers; neither library reads the other's. timm itself
is not needed.
"""

from pathlib import Path
from typing import Any

from visreg_training.bounded import check_shape
from visreg_training.run_folder import read_object, write_json


WEIGHTS = "timm/model.safetensors"
_EPSILON = 1e-6  # of the LayerNorms in timm's ViT


def add_timm(directory: Path) -> Path:
    """Adds the folder timm/, and timm's keys, to a checkpoint directory; returns the file of weights.

    Raises:
        ValueError: timm's ViT has no such architecture.
    """
    from modeling_visreg import to_released
    from modeling_visreg.loading import read_config

    config = read_config(directory)
    if config.hidden_act != "gelu" or config.layer_norm_eps != _EPSILON:
        raise ValueError(
            f"timm's ViT needs hidden_act gelu and layer_norm_eps {_EPSILON}; so it cannot read this one."
        )
    target = to_released(directory, directory / WEIGHTS)
    keys = timm_keys(config, directory)
    write_json(directory / "config.json", read_object(directory / "config.json") | keys)
    write_json(target.with_name("config.json"), keys)
    return target


def timm_keys(config: Any, directory: Path) -> dict[str, Any]:
    """The keys of config.json that timm reads. The registered name only says which class; sizes are arguments."""
    height, width = config.native_size
    processor = read_object(directory / "preprocessor_config.json")
    check_shape(processor, {"size": {"shortest_edge": int}}, "preprocessor_config.json")
    edge = (processor.get("size") or {}).get("shortest_edge")
    if not edge:
        raise ValueError(f"{directory / 'preprocessor_config.json'} says no shortest edge, which timm needs")
    return {
        "architecture": "vit_base_patch16_224",
        "num_classes": 0,
        "num_features": config.hidden_size,
        "global_pool": "token",
        "model_args": {
            "img_size": [height, width],
            "patch_size": config.patch_size,
            "in_chans": config.num_channels,
            "embed_dim": config.hidden_size,
            "depth": config.num_hidden_layers,
            "num_heads": config.num_attention_heads,
            # timm takes the whole part of ratio x width: half a unit more keeps rounding away from it.
            "mlp_ratio": (config.intermediate_size + 0.5) / config.hidden_size,
            "qkv_bias": config.qkv_bias,
        },
        "pretrained_cfg": {
            "hf_hub_filename": WEIGHTS,
            "input_size": [config.num_channels, height, width],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": max(height, width) / edge,
            "crop_mode": "center",
            "mean": processor["image_mean"],
            "std": processor["image_std"],
            "num_classes": 0,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
