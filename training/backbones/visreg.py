# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The model that is pretrained: a backbone with its projector, built anew or continued from a checkpoint."""

from pathlib import Path
from typing import Any

from transformers import PretrainedConfig

from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining, VISRegViTModel

from ..run_folder import model_directory


def build_pretraining_model(config: PretrainedConfig) -> VISRegViTForPreTraining:
    """A model with fresh weights, drawn from torch's global generator."""
    return VISRegViTForPreTraining(config)


def continue_pretraining_model(
    checkpoint: str, projection_size: int | None, projector_hidden_size: int | None, drop_path_rate: float | None
) -> VISRegViTForPreTraining:
    """A model whose backbone is that of `checkpoint`, and whose projector too if it lies beside and keeps its sizes.

    Args:
        checkpoint: directory, Hub id, or the folder of a run, which stands for its model/. A projector is looked for
            in `pretraining/`, beside or inside a directory.
        projection_size, projector_hidden_size, drop_path_rate: None keeps the checkpoint's. Another size of the
            projector makes it a fresh one.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: it lacks weights of the backbone.
    """
    checkpoint = model_directory(checkpoint)
    config = VISRegViTConfig.from_pretrained(checkpoint)
    sizes = (config.projection_size, config.projector_hidden_size)
    config.projection_size = projection_size or config.projection_size
    config.projector_hidden_size = projector_hidden_size or config.projector_hidden_size
    config.drop_path_rate = config.drop_path_rate if drop_path_rate is None else drop_path_rate
    beside = [Path(checkpoint) / "pretraining", Path(checkpoint).parent / "pretraining"]
    projector = next((path for path in beside if (path / "config.json").is_file()), None)
    if projector is not None and sizes == (config.projection_size, config.projector_hidden_size):
        return _loaded(VISRegViTForPreTraining, projector, config)
    model = VISRegViTForPreTraining(config)
    model.base_model.load_state_dict(_loaded(VISRegViTModel, checkpoint, config).state_dict())
    return model


def _loaded(kind: type, checkpoint: str | Path, config: VISRegViTConfig) -> Any:
    """`kind.from_pretrained`, refusing a checkpoint that lacks weights (which would be random ones)."""
    model, report = kind.from_pretrained(checkpoint, config=config, output_loading_info=True)
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ValueError(
            f"{checkpoint} is no VISReg checkpoint: it lacks {', '.join(missing[:3])} ({len(missing)} in all)"
        )
    return model
