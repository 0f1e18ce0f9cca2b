# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A backbone from its name, or around a model in memory.

backbone = open_backbone("timm:vit_small_patch16_224")
features = backbone.embed(pixels, layers=4)        # (B, 4 d)
"""

from pathlib import Path
from typing import cast

from torch import nn
from transformers import PreTrainedModel

from modeling_visreg import save_checkpoint
from modeling_visreg.checkpoint import atomic_directory

from ..run_folder import model_directory
from .adapted import AdaptedModel
from .interface import Backbone, check_name
from .timm_backbone import is_timm_config, open_timm, open_timm_folder, timm_architecture
from .transformers_backbone import open_transformers, read_config_of
from .visreg import VISRegBackbone


def open_backbone(name: str, trust_remote_code: bool = False) -> Backbone:
    """Opens `timm/NAME` or `timm:NAME` (timm's weights), `timm:NAME:FILE` (weights of a file), a folder in timm's form
    or whatever AutoModel opens, frozen.

    A run folder of `visreg pretrain` stands for the model in it.

    Raises:
        ValueError, OSError: the name is not known, or the model does not take images.
    """
    check_name(name)
    try:
        if timm_architecture(name) is not None:
            return open_timm(name).freeze()
        path = model_directory(name)
        if Path(path).is_dir() and is_timm_config(read_config_of(path)):
            return open_timm_folder(name, path).freeze()
        return open_transformers(name, trust_remote_code).freeze()
    except OSError as error:
        raise OSError(f"the model {name!r} cannot be read: {error}") from error


def wrap_backbone(model: nn.Module, name: str = "model") -> Backbone:
    """The interface around the backbone of a model in memory, which is left in its mode and on its device.

    Its input is that of the checkpoint the model would be saved as. Take features inside `with backbone.evaluating()`.

    Args:
        model: any VISReg ViT class, or an `AdaptedModel`, unwrapped.
        name: what results call it.
    """
    return model.interface if isinstance(model, AdaptedModel) else VISRegBackbone(name, cast(PreTrainedModel, model))


def save_with_projector(model: nn.Module, directory: str | Path) -> None:
    """A model in training, backbone and projector, in the place of whatever is there; a run can start from it."""
    if isinstance(model, AdaptedModel):
        with atomic_directory(directory, overwrite=True) as staging:
            model.save_pretrained(staging)
    else:
        save_checkpoint(cast(PreTrainedModel, model), directory, overwrite=True)
