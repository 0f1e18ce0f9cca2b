# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Whatever AutoModel opens: checkpoints of this package and the vision models of transformers.

B images, N patches, d width, P prefix tokens.
"""

import inspect
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from transformers.modeling_layers import GradientCheckpointingLayer

from modeling_visreg import VISRegViTConfig, VISRegViTModel  # which also makes the Auto classes know our checkpoints
from modeling_visreg.loading import HUB_ID, check_finite, load_checkpoint, local_directory, read_config_object

from ..compat import attention_implementation
from ..errors import one_line
from ..run_folder import model_directory
from .interface import Backbone, Tokens, cls_attention, pool


# What vision models in transformers call their final norm.
_FINAL_NORMS = ("layernorm", "layer_norm", "norm", "post_layernorm")
# Their first token is the mean of the others; `patch_size`, by which CLS is told, they have none.
_POOLED_FIRST = ("dinov3_convnext",)
# The blocks of convolutional networks, which are no `GradientCheckpointingLayer`.
_BLOCK = re.compile(r"(ConvNextLayer|ConvNextV2Layer|BasicLayer|BottleNeckLayer|BottleneckLayer)$")
LARGEST_DEPTH = 1024  # blocks; and pixels of a side of what an image processor asks for are bounded too
LARGEST_SIDE = 4096
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

    def blocks(self) -> list[nn.Module]:
        return transformers_blocks(self.module)

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

    def feature(self, pixels: torch.Tensor) -> torch.Tensor:
        """As in the interface; a convolutional network pools its map and then normalizes, where it has a norm."""
        output = self.module(pixel_values=pixels, **self.arguments(pixels))
        state = output.last_hidden_state
        if state.ndim == 4 or self.module.config.model_type in _POOLED_FIRST:
            return output.pooler_output.flatten(1)
        return pool(self.split(state, pixels), None)

    def split(self, state: torch.Tensor, pixels: torch.Tensor) -> Tokens:
        if state.ndim == 4:  # a convolutional network: (B, d, h, w)
            state = state.flatten(2).transpose(1, 2)
        count = state.shape[1]
        if self.patch_size:
            count = (pixels.shape[-2] // self.patch_size) * (pixels.shape[-1] // self.patch_size)
        extra = state.shape[1] - count
        if self.module.config.model_type in _POOLED_FIRST:
            extra = 1
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


def transformers_blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks of a model: the innermost layers that transformers can checkpoint, else those with a block's name."""
    layers = [layer for layer in module.modules() if isinstance(layer, GradientCheckpointingLayer)]
    innermost = [
        layer
        for layer in layers
        if not any(isinstance(child, GradientCheckpointingLayer) for child in layer.modules() if child is not layer)
    ]
    return innermost or [layer for layer in module.modules() if _BLOCK.search(type(layer).__name__)]


def open_transformers(name: str, trust_remote_code: bool = False) -> TransformersBackbone:
    """A directory, a Hub id, or a run folder, which stands for the model in it.

    Raises:
        ValueError, OSError: there is no such model, it lacks weights, or it does not take images.
    """
    path = model_directory(name)
    if model_type(path) == VISRegViTConfig.model_type:
        path = str(local_directory(path))
        module: nn.Module = load_checkpoint(VISRegViTModel, path)
    else:
        module = open_automodel(path, trust_remote_code)
    if module.main_input_name != "pixel_values":
        raise ValueError(f"{name} is a {type(module).__name__}, which does not take images alone")
    size, mean, std = preprocessing_of(path, module.config, trust_remote_code)
    return TransformersBackbone(name, module, size, mean, std, trust_remote_code)


def model_type(path: str) -> str | None:
    """The family of a checkpoint, by its config.json, which is refused if it names code that lies elsewhere."""
    file = Path(path) / "config.json"
    if not Path(path).exists() and HUB_ID.fullmatch(path):
        file = Path(hf_hub_download(path, "config.json"))
    return read_config_object(file).get("model_type")


def open_automodel(path: str, trust_remote_code: bool) -> nn.Module:
    """A model of another family, with every weight from its checkpoint.

    The pooler is not used here and many checkpoints lack it: zeros take its place, so that the hash of the weights
    does not depend on chance.

    Raises:
        ValueError: it cannot be opened, or lacks weights, which would be random ones.
    """
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
        check_depth(config, path)
        module, report = AutoModel.from_pretrained(
            path, trust_remote_code=trust_remote_code, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a stranger's files make transformers fail in any way there is
        raise ValueError(f"{path} cannot be opened: {one_line(error, 300)}") from error
    missing = set(report["missing_keys"])
    pooler = {name for name in missing if name.startswith("pooler.")}
    if others := sorted(missing - pooler):
        raise ValueError(f"{path} lacks weights: {', '.join(others[:3])} ({len(others)} in all)")
    weights = module.state_dict()
    for name in pooler:
        weights[name].zero_()
    check_finite(weights, path)
    return module


def check_depth(config: Any, path: str) -> None:
    """Raises ValueError for more blocks than any model has: building them takes memory before a weight is read."""
    for key, value in config.to_dict().items():
        counts = value if isinstance(value, list | tuple) else [value]
        numbers = [count for count in counts if isinstance(count, int)]
        if any(word in key for word in ("layer", "depth", "block")) and max(numbers, default=0) > LARGEST_DEPTH:
            raise ValueError(f"{path}: {key} is {max(numbers)}, more than the {LARGEST_DEPTH} that are built")


def config_size(config: Any) -> tuple[int, int] | None:
    """Native (height, width) by the configuration."""
    size = getattr(config, "image_size", None)
    return (size, size) if isinstance(size, int) else tuple(size) if size else None


def preprocessing_of(path: str, config: Any, trust_remote_code: bool) -> tuple[tuple[int, int], list, list]:
    """(size, mean, std) of the image processor, or of the configuration and ImageNet where there is none.

    Raises:
        ValueError: a size or a statistic that no model takes.
    """
    size = config_size(config) or (224, 224)
    try:
        processor = AutoImageProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError):
        return size, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    edges = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    if edges and getattr(edges, "height", None) and getattr(edges, "width", None):
        size = (edges["height"], edges["width"])
    mean, std = (0.0,) * 3, (1.0,) * 3
    if getattr(processor, "do_normalize", True):
        mean, std = processor.image_mean or IMAGENET_DEFAULT_MEAN, processor.image_std or IMAGENET_DEFAULT_STD
    check_preprocessing(path, size, mean, std)
    return size, mean, std


def check_preprocessing(path: str, size: Sequence, mean: Any, std: Any) -> None:
    """Raises ValueError for sizes and statistics that no model takes: the file they stand in may be anybody's."""
    if not all(isinstance(side, int) and 1 <= side <= LARGEST_SIDE for side in size):
        raise ValueError(f"{path}: images of {size} pixels are not taken, at most {LARGEST_SIDE} on a side")
    for name, values in (("image_mean", mean), ("image_std", std)):
        numbers = values if isinstance(values, list | tuple) else [values]
        if not all(isinstance(number, int | float) and math.isfinite(number) for number in numbers):
            raise ValueError(f"{path}: {name} is {values}, not a number for each channel")
    if not all(number > 0 for number in (std if isinstance(std, list | tuple) else [std])):
        raise ValueError(f"{path}: image_std has to be above 0, not {std}")
