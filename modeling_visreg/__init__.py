# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The VISReg model family for transformers. Importing it makes the Auto classes know `visreg_vit`."""

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
)

# Not from `transformers` itself: there, up to 5.17, it is a stand-in that asks for torchvision even for PIL's classes.
from transformers.models.auto.image_processing_auto import AutoImageProcessor

from .checkpoint import IMAGE_PROCESSORS, image_processor_for, save_checkpoint
from .configuration_visreg import VISRegViTConfig
from .conversion import (
    config_from_timm_state_dict,
    convert_checkpoint,
    from_timm_state_dict,
    read_released,
    to_released,
    to_timm_state_dict,
)
from .modeling_visreg import (
    VISRegViTBackbone,
    VISRegViTForImageClassification,
    VISRegViTForPreTraining,
    VISRegViTForPreTrainingOutput,
    VISRegViTModel,
    VISRegViTPreTrainedModel,
)


AutoConfig.register(VISRegViTConfig.model_type, VISRegViTConfig, exist_ok=True)
AutoModel.register(VISRegViTConfig, VISRegViTModel, exist_ok=True)
AutoBackbone.register(VISRegViTConfig, VISRegViTBackbone, exist_ok=True)
AutoModelForPreTraining.register(VISRegViTConfig, VISRegViTForPreTraining, exist_ok=True)
AutoModelForImageClassification.register(VISRegViTConfig, VISRegViTForImageClassification, exist_ok=True)
AutoImageProcessor.register(VISRegViTConfig, image_processor_classes=IMAGE_PROCESSORS, exist_ok=True)

__all__ = [
    "VISRegViTBackbone",
    "VISRegViTConfig",
    "VISRegViTForImageClassification",
    "VISRegViTForPreTraining",
    "VISRegViTForPreTrainingOutput",
    "VISRegViTModel",
    "VISRegViTPreTrainedModel",
    "config_from_timm_state_dict",
    "convert_checkpoint",
    "from_timm_state_dict",
    "image_processor_for",
    "read_released",
    "save_checkpoint",
    "to_released",
    "to_timm_state_dict",
]
