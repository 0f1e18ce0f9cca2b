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
from transformers.pipelines import PIPELINE_REGISTRY

from .checkpoint import image_processor_for, save_checkpoint
from .configuration_visreg import VISRegViTConfig
from .conversion import (
    config_from_timm_state_dict,
    convert_checkpoint,
    from_timm_state_dict,
    read_released,
    to_released,
    to_timm_state_dict,
)
from .image_processing_visreg import PIPELINES, VISRegViTImageProcessor
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
# One class for both of transformers' backends: what it gives must not depend on what is installed.
AutoImageProcessor.register(
    VISRegViTConfig,
    image_processor_classes=dict.fromkeys(("torchvision", "pil"), VISRegViTImageProcessor),
    exist_ok=True,
)
# The pipelines of two tasks, which for models of other families do what they did. `register_pipeline` would warn.
for task, pipeline_class in PIPELINES.items():
    PIPELINE_REGISTRY.supported_tasks[task] = PIPELINE_REGISTRY.supported_tasks[task] | {"impl": pipeline_class}

__all__ = [
    "VISRegViTBackbone",
    "VISRegViTConfig",
    "VISRegViTForImageClassification",
    "VISRegViTForPreTraining",
    "VISRegViTForPreTrainingOutput",
    "VISRegViTImageProcessor",
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
