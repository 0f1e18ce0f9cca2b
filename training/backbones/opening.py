# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A backbone from its name, or around a model in memory.

backbone = open_backbone("timm:vit_small_patch16_224")
features = backbone.embed(pixels, layers=4)        # (B, 4 d)
"""

import os
import re

from transformers import PreTrainedModel

from .interface import Backbone
from .timm_backbone import open_timm
from .transformers_backbone import open_transformers
from .visreg import VISRegBackbone


def open_backbone(name: str, trust_remote_code: bool = False) -> Backbone:
    """Opens `timm:NAME` (timm's weights), `timm:NAME:FILE` (weights of a file) or whatever AutoModel opens, frozen.

    A run folder of `visreg pretrain` stands for the model in it.

    Raises:
        ValueError, OSError: the name is not known, or the model does not take images.
    """
    if not name.startswith("timm:") and not os.path.exists(name) and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(
            f"there is no model {name!r}: no folder of that name, and ids on the Hub have the form organization/name"
        )
    try:
        backbone = open_timm(name) if name.startswith("timm:") else open_transformers(name, trust_remote_code)
    except OSError as error:
        raise OSError(f"the model {name!r} cannot be read: {error}") from error
    return backbone.freeze()


def wrap_backbone(model: PreTrainedModel, name: str = "model") -> Backbone:
    """The interface around the backbone of a model in memory, which is left in its mode and on its device.

    Its input is that of the checkpoint the model would be saved as. Take features inside `with backbone.evaluating()`.

    Args:
        model: any VISReg ViT class, unwrapped.
        name: what results call it.
    """
    return VISRegBackbone(name, model)
