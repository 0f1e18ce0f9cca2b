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


def architecture_name(config: PretrainedConfig) -> str | None:
    """The name of the architecture whose width, depth, heads and MLP a configuration has, if there is one."""
    sizes = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads)
    for name, values in ARCHITECTURES.items():
        hidden = values.get("intermediate_size", 4 * values["size"][0])
        if values["size"] == sizes and hidden == config.intermediate_size:
            return name
    return None


def build_model(config: PretrainedConfig) -> VISRegViTForPreTraining:
    """A freshly initialised model, from torch's global generator."""
    return VISRegViTForPreTraining(config)


def backbone_folder(checkpoint: str) -> str:
    """Where the backbone of a checkpoint lies: the folder of a run stands for its model/."""
    inner = Path(checkpoint) / "model"
    return str(inner) if (inner / "config.json").is_file() else checkpoint


def continue_model(
    checkpoint: str, projection_size: int | None, projector_hidden_size: int | None, drop_path_rate: float | None
) -> VISRegViTForPreTraining:
    """A model whose backbone is that of `checkpoint`, and whose projector too if it lies beside and keeps its sizes.

    Args:
        checkpoint: directory, or Hub id. A projector is looked for in `pretraining/`, beside or inside a directory.
        projection_size, projector_hidden_size, drop_path_rate: None keeps the checkpoint's. Another size of the
            projector makes it a fresh one.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: it lacks weights of the backbone.
    """
    config = VISRegViTConfig.from_pretrained(checkpoint)
    sizes = (config.projection_size, config.projector_hidden_size)
    config.projection_size = projection_size or config.projection_size
    config.projector_hidden_size = projector_hidden_size or config.projector_hidden_size
    config.drop_path_rate = config.drop_path_rate if drop_path_rate is None else drop_path_rate
    beside = [Path(checkpoint) / "pretraining", Path(checkpoint).parent / "pretraining"]
    projector = next((path for path in beside if (path / "config.json").is_file()), None)
    if projector is not None and sizes == (config.projection_size, config.projector_hidden_size):
        return loaded(VISRegViTForPreTraining, projector, config)
    model = VISRegViTForPreTraining(config)
    model.base_model.load_state_dict(loaded(VISRegViTModel, checkpoint, config).state_dict())
    return model


def loaded(kind: type, checkpoint: str | Path, config: VISRegViTConfig) -> Any:
    """`kind.from_pretrained`, refusing a checkpoint that lacks weights (which would be random ones)."""
    model, report = kind.from_pretrained(checkpoint, config=config, output_loading_info=True)
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(
            f"{checkpoint} is no VISReg checkpoint: it lacks {', '.join(missing[:3])} ({len(missing)} in all)"
        )
    return model
