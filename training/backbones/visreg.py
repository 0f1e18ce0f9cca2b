# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The model that is pretrained: a backbone with its projector, built anew or continued from a checkpoint."""

from transformers import PretrainedConfig

from modeling_visreg import VISRegViTForPreTraining, VISRegViTModel
from modeling_visreg.loading import load_checkpoint, local_directory, read_config

from ..run_folder import model_directory


def build_pretraining_model(config: PretrainedConfig) -> VISRegViTForPreTraining:
    """A model with fresh weights, drawn from torch's global generator."""
    return VISRegViTForPreTraining(config)


def continue_pretraining_model(
    checkpoint: str,
    projection_size: int | None,
    projector_hidden_size: int | None,
    drop_path_rate: float | None,
    projector_act: str | None = None,
) -> VISRegViTForPreTraining:
    """A model whose backbone is that of `checkpoint`, and whose projector too if it lies beside and keeps its sizes.

    Args:
        checkpoint: directory, Hub id, or the folder of a run, which stands for its model/. A projector is looked for
            in `pretraining/`, beside or inside a directory.
        projection_size, projector_hidden_size, drop_path_rate, projector_act: None keeps the checkpoint's. Another
            size or activation of the projector makes it a fresh one.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: it cannot be read, or lacks weights of the backbone.
    """
    directory = local_directory(model_directory(checkpoint))
    config = read_config(directory)
    sizes = (config.projection_size, config.projector_hidden_size, config.projector_act)
    config.projector_act = projector_act or config.projector_act
    config.projection_size = projection_size or config.projection_size
    config.projector_hidden_size = projector_hidden_size or config.projector_hidden_size
    config.drop_path_rate = config.drop_path_rate if drop_path_rate is None else drop_path_rate
    beside = [directory / "pretraining", directory.parent / "pretraining"]
    projector = next((path for path in beside if (path / "config.json").is_file()), None)
    if projector is not None and sizes == (config.projection_size, config.projector_hidden_size, config.projector_act):
        return load_checkpoint(VISRegViTForPreTraining, projector, config)
    model = VISRegViTForPreTraining(config)
    model.base_model.load_state_dict(load_checkpoint(VISRegViTModel, directory, config).state_dict())
    return model
