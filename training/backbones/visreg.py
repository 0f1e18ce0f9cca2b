# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Our own ViT in training: with its projector, built anew or continued from a checkpoint.

d width of the backbone.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from modeling_visreg import VISRegViTForPreTraining, VISRegViTModel, image_processor_for, save_checkpoint
from modeling_visreg.loading import load_checkpoint, local_directory, read_config

from ..run_folder import model_directory
from .transformers_backbone import TransformersBackbone


class VISRegBackbone(TransformersBackbone):
    """The interface around the backbone of a VISReg model in memory, which is left in its mode and on its device.

    Its input is that of the checkpoint the model would be saved as.

    Args:
        name: what results call it.
        model: any VISReg ViT class, unwrapped.
    """

    def __init__(self, name: str, model: PreTrainedModel):
        config = model.config
        processor = image_processor_for(config)
        super().__init__(name, model.base_model, config.native_size, processor.image_mean, processor.image_std)

    @property
    def width(self) -> int:
        return self.module.config.hidden_size

    @property
    def probe_width(self) -> int:
        return 2 * self.width

    def encode(self, pixels: torch.Tensor, probed: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """As in the interface; the probe of the paper reads the CLS tokens of the last two blocks."""
        output = self.module(pixels, output_hidden_states=probed)
        feature = output.pooler_output
        return feature, last_blocks(output) if probed else feature.detach()[:, :0]

    def save(self, directory: str | Path) -> None:
        save_checkpoint(self.module, directory, overwrite=True)


def last_blocks(output: Any) -> torch.Tensor:
    """(rows, 2d), detached: the CLS tokens of the last two blocks, before the final norm; the last one twice if there
    is one block only.
    """
    states = output.hidden_states[1:][-2:]
    return torch.cat([states[0][:, 0], states[-1][:, 0]], dim=1).detach()


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
    backbone = load_checkpoint(VISRegViTModel, directory, config)  # first: it compares sizes before memory is taken
    model = VISRegViTForPreTraining(config)
    model.base_model.load_state_dict(backbone.state_dict())
    return model
