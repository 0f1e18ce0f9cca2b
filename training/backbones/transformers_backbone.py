# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Whatever AutoModel opens: checkpoints of this package and the vision models of transformers.

B images, N patches, d width, P prefix tokens.
"""

import inspect
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import AutoImageProcessor, AutoModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

import modeling_visreg  # noqa: F401 - makes AutoModel know our checkpoints

from ..compat import attention_implementation
from ..run_folder import model_directory
from .interface import Backbone, Tokens, cls_attention


# What vision models in transformers call their final norm.
_FINAL_NORMS = ("layernorm", "layer_norm", "norm", "post_layernorm")
# They say nothing about what a model computes.
_VOLATILE_CONFIG = (
    "_name_or_path",
    "architectures",
    "auto_map",
    "dtype",
    "minimum_transformers_version",
    "torch_dtype",
    "transformers_version",
)


class TransformersBackbone(Backbone):
    """What AutoModel opens.

    Attributes:
        trust_remote_code: whether it was opened with the code that its repository brings.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        native_size: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        trust_remote_code: bool = False,
    ):
        self.trust_remote_code = trust_remote_code
        config = module.config
        patch = getattr(config, "patch_size", None)
        super().__init__(name, module, native_size, mean, std, patch[0] if isinstance(patch, list | tuple) else patch)
        self.accepted = inspect.signature(module.forward).parameters
        if config.model_type == "vit_mae":
            config.mask_ratio = 0.0  # its encoder drops 75 % of the patches, at random, even in evaluation mode

    def arguments(self, pixels: torch.Tensor) -> dict[str, Any]:
        if self.module.config.model_type == "vit_mae":
            count = (pixels.shape[-2] // self.patch_size) * (pixels.shape[-1] // self.patch_size)
            # Its patches are sorted by this noise: ascending keeps their order.
            noise = torch.arange(count, device=pixels.device, dtype=torch.float32).expand(len(pixels), -1)
            return {"noise": noise, "interpolate_pos_encoding": True}
        if "interpolate_pos_encoding" in self.accepted and tuple(pixels.shape[-2:]) != config_size(self.module.config):
            return {"interpolate_pos_encoding": True}
        return {}

    def tokens(self, pixels: torch.Tensor, layers: int = 1) -> list[Tokens]:
        output = self.module(pixel_values=pixels, output_hidden_states=layers > 1, **self.arguments(pixels))
        # The last state is taken from where the model itself normalized it: in some families the last of
        # `hidden_states` is normalized already, in others not.
        states = [output.last_hidden_state]
        if layers > 1:
            norm = self.final_norm()
            if layers > len(output.hidden_states) - 1:
                raise ValueError(f"{self.name} has {len(output.hidden_states) - 1} blocks, not {layers}")
            states = [norm(state) for state in output.hidden_states[-layers:-1]] + states
        return [self.split(state, pixels) for state in states]

    def split(self, state: torch.Tensor, pixels: torch.Tensor) -> Tokens:
        if state.ndim == 4:  # a convolutional network: (B, d, h, w)
            state = state.flatten(2).transpose(1, 2)
        count = state.shape[1]
        if self.patch_size:
            count = (pixels.shape[-2] // self.patch_size) * (pixels.shape[-1] // self.patch_size)
        extra = state.shape[1] - count
        extra = extra if extra >= 0 else 0  # hierarchical models merge patches and have no CLS
        return Tokens(state[:, :extra], state[:, extra:])

    def final_norm(self) -> nn.Module:
        for name in _FINAL_NORMS:
            if isinstance(norm := getattr(self.module, name, None), nn.Module):
                return norm
        raise ValueError(f"{self.name}: no final norm is known in {type(self.module).__name__}; use --layers 1")

    def attention(self, pixels: torch.Tensor) -> torch.Tensor:
        self.check_evaluating()
        before = attention_implementation(self.module)
        self.module.set_attn_implementation("eager")  # the fused kernels do not give the attention away
        try:
            output = self.module(pixel_values=pixels, output_attentions=True, **self.arguments(pixels))
        finally:
            self.module.set_attn_implementation(before)
        prefix = self.split(output.last_hidden_state, pixels).prefix.shape[1]
        return cls_attention(self, output.attentions[-1], prefix, pixels)

    def architecture(self) -> str:
        config = {key: value for key, value in self.module.config.to_dict().items() if key not in _VOLATILE_CONFIG}
        return json.dumps(config, sort_keys=True, default=str)


def open_transformers(name: str, trust_remote_code: bool = False) -> TransformersBackbone:
    """A directory, a Hub id, or a run folder, which stands for the model in it.

    Raises:
        ValueError, OSError: there is no such model, or it does not take images.
    """
    path = model_directory(name)
    module = AutoModel.from_pretrained(path, trust_remote_code=trust_remote_code, dtype=torch.float32)
    if module.main_input_name != "pixel_values":
        raise ValueError(f"{name} is a {type(module).__name__}, which does not take images alone")
    size, mean, std = preprocessing_of(path, module.config, trust_remote_code)
    return TransformersBackbone(name, module, size, mean, std, trust_remote_code)


def config_size(config: Any) -> tuple[int, int] | None:
    """Native (height, width) by the configuration."""
    size = getattr(config, "image_size", None)
    return (size, size) if isinstance(size, int) else tuple(size) if size else None


def preprocessing_of(path: str, config: Any, trust_remote_code: bool) -> tuple[tuple[int, int], list, list]:
    """(size, mean, std) of the image processor, or of the configuration and ImageNet where there is none."""
    size = config_size(config) or (224, 224)
    try:
        processor = AutoImageProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError):
        return size, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    edges = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    if edges and getattr(edges, "height", None) and getattr(edges, "width", None):
        size = (edges["height"], edges["width"])
    if not getattr(processor, "do_normalize", True):
        return size, (0.0,) * len(IMAGENET_DEFAULT_MEAN), (1.0,) * len(IMAGENET_DEFAULT_STD)
    return size, processor.image_mean or IMAGENET_DEFAULT_MEAN, processor.image_std or IMAGENET_DEFAULT_STD
