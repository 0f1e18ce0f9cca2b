# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Whatever AutoModel opens: checkpoints of this package and the vision models of transformers.

B images, N patches, d width, P prefix tokens.
"""

import copy
import inspect
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from torch import nn
from transformers import (
    MODEL_MAPPING,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    BitImageProcessor,
    BitImageProcessorPil,
)
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import is_torchvision_available

from modeling_visreg import VISRegViTConfig, VISRegViTModel  # which also makes the Auto classes know our checkpoints
from modeling_visreg.checkpoint import RESIZE_RATIO, atomic_directory, disk_errors
from modeling_visreg.loading import (
    FLOATS,
    HUB_ID,
    INDEX,
    WEIGHTS,
    check_finite,
    host_memory,
    load_checkpoint,
    local_directory,
    read_config_object,
    stored_tensors,
)

from ..compat import attention_implementation, enable_activation_checkpointing
from ..errors import one_line
from ..run_folder import Json, model_directory, read_object
from .interface import LARGEST_DEPTH, Backbone, Tokens, check_preprocessing, cls_attention, pool
from .raw_checkpoint import ABSENT, BACKBONE_PREFIX, PROJECTOR, absent_of, load_tensors


# What vision models in transformers call their final norm.
_FINAL_NORMS = ("layernorm", "layer_norm", "norm", "post_layernorm")
# Their first token is the mean of the others; `patch_size`, by which CLS is told, they have none.
_POOLED_FIRST = ("dinov3_convnext",)
# The blocks of convolutional networks, which are no `GradientCheckpointingLayer`.
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")  # of a block, in the name of a weight
_BLOCK = re.compile(r"(ConvNextLayer|ConvNextV2Layer|BasicLayer|BottleNeckLayer|BottleneckLayer)$")
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
        processor: image processor of its checkpoint, None where there is none.
        absent: names of weights that its checkpoint lacks, and `save` leaves out.
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
        self.processor: Any = None
        self.absent: frozenset[str] = frozenset()
        self.masked_share = getattr(config, "mask_ratio", None)
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
        if state.ndim == 4 or self.normalizes_in_pooler():
            return output.pooler_output.flatten(1)
        return pool(self.split(state, pixels), None)

    def normalizes_in_pooler(self) -> bool:
        """Whether the tokens have no final norm, but their mean has (BEiT)."""
        norm = getattr(getattr(self.module, "pooler", None), "layernorm", None)
        plain = isinstance(getattr(self.module, "layernorm", None), nn.Identity)
        return plain and norm is not None and "pooler.layernorm.weight" not in self.absent

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

    def save(self, directory: str | Path) -> None:
        """A checkpoint of the native class with its image processor, in the place of whatever is there."""
        config, ours = self.module.config, getattr(self.module.config, "mask_ratio", None)
        with atomic_directory(directory, overwrite=True) as staging, disk_errors(directory):
            if ours is not None:
                config.mask_ratio = self.masked_share
            try:
                weights = {name: value for name, value in self.module.state_dict().items() if name not in self.absent}
                self.module.save_pretrained(staging, state_dict=weights)
            finally:
                if ours is not None:
                    config.mask_ratio = ours
            self.save_processor(staging)

    def save_processor(self, directory: Path) -> None:
        processor = self.processor or plain_processor(*self.native_size, self.mean, self.std)
        processor.save_pretrained(directory)

    def config_dict(self) -> Json:
        config = self.module.config.to_dict()
        config.pop("_name_or_path", None)  # where it lay on this machine
        return config | ({"mask_ratio": self.masked_share} if self.masked_share is not None else {})

    def rebuilt(self) -> "TransformersBackbone":
        config = copy.deepcopy(self.module.config)
        if self.masked_share is not None:
            config.mask_ratio = self.masked_share
        made = TransformersBackbone(self.name, build_transformers(config), self.native_size, self.mean, self.std)
        made.processor, made.absent = self.processor, self.absent
        return made

    def enable_activation_checkpointing(self) -> None:
        if not self.module.supports_gradient_checkpointing:
            raise ValueError(f"activation_checkpointing: {type(self.module).__name__} of transformers has none")
        enable_activation_checkpointing(self.module)

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


def open_transformers(
    name: str, trust_remote_code: bool = False, change: Callable[[Any], None] | None = None
) -> TransformersBackbone:
    """A directory, a Hub id, or a run folder, which stands for the model in it.

    Args:
        name: of it.
        trust_remote_code: run the code that a repository brings.
        change: changes the configuration of a model of another family before it is built.

    Raises:
        ValueError, OSError: there is no such model, it lacks weights, or it does not take images.
    """
    path, absent = model_directory(name), frozenset[str]()
    content = read_config_of(path)
    if content.get("model_type") == VISRegViTConfig.model_type:
        path = str(local_directory(path))
        module: nn.Module = load_checkpoint(VISRegViTModel, path)
    else:
        config = read_vision_config(path, trust_remote_code)
        if change is not None:
            change(config)
        if PROJECTOR in content:
            module = build_transformers(config)
            load_tensors(module, path, BACKBONE_PREFIX)
            absent = absent_of(content)
        else:
            module, absent = open_automodel(path, config, trust_remote_code)
    return wrap_transformers(name, path, module, trust_remote_code, absent)


def wrap_transformers(
    name: str, path: str, module: nn.Module, trust_remote_code: bool = False, absent: frozenset[str] = frozenset()
) -> TransformersBackbone:
    """A model with the preprocessing of its checkpoint `path`."""
    processor = processor_of(path, trust_remote_code)
    size, mean, std = preprocessing_of(path, module.config, processor)
    backbone = TransformersBackbone(name, module, size, mean, std, trust_remote_code)
    backbone.processor, backbone.absent = processor, absent
    return backbone


def read_config_of(path: str) -> Json:
    """The config.json of a checkpoint of any family, which is refused if it names code that lies elsewhere.

    Raises:
        ValueError, OSError: it cannot be read, the Hub has none, or keeps it for those who accept its conditions.
    """
    file = Path(path) / "config.json"
    if not Path(path).exists() and HUB_ID.fullmatch(path):
        try:
            file = Path(hf_hub_download(path, "config.json"))
        except GatedRepoError as error:
            page = f"https://huggingface.co/{path}"
            raise OSError(f"it is gated: accept its conditions at {page}, then log in with `hf auth login`") from error
        except RepositoryNotFoundError as error:
            raise OSError(
                "there is no such model on the Hub (or it is private and you are not logged in: `hf auth login`), and "
                "no local folder of that name"
            ) from error
    return read_config_object(file)


def read_vision_config(path: str, trust_remote_code: bool = False) -> Any:
    """The configuration of a vision model; of a model of images and text, that of its vision tower.

    Raises:
        ValueError: it cannot be read, has more blocks than are built, or does not take images alone.
    """
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a stranger's file makes transformers fail in any way there is
        raise ValueError(f"{path} cannot be opened: {one_line(error, 300)}") from error
    for ours in (PROJECTOR, ABSENT):
        vars(config).pop(ours, None)
    check_depth(config, path)
    if takes_images(config) is False and (tower := getattr(config, "vision_config", None)) is not None:
        config = tower
    if takes_images(config) is False:
        kind = MODEL_MAPPING[type(config)].__name__
        raise ValueError(f"{path} is a {kind}, which does not take images alone")
    return config


def takes_images(config: Any) -> bool | None:
    """Whether the model that AutoModel makes of a configuration takes images alone; None where that is not known."""
    kind = MODEL_MAPPING.get(type(config), None)  # its `get` wants the default
    kind = kind[0] if isinstance(kind, tuple) else kind
    return None if kind is None else kind.main_input_name == "pixel_values"


def build_transformers(config: Any) -> nn.Module:
    """A model with random weights.

    Raises:
        ValueError: the configuration makes none.
    """
    check_room(config)
    try:
        return AutoModel.from_config(config, dtype=torch.float32)
    except MemoryError:
        raise
    except Exception as error:  # a stranger's configuration makes transformers fail in any way there is
        raise ValueError(f"no model can be built: {one_line(error, 300)}") from error


def check_room(config: Any) -> None:
    """Raises ValueError where the weights of a configuration are larger than this machine's memory."""
    try:
        with torch.device("meta"):
            model = AutoModel.from_config(copy.deepcopy(config), dtype=torch.float32)
    except Exception:  # what is built in earnest says what is wrong; some classes are not made for this device
        return
    need, memory = 4 * sum(parameter.numel() for parameter in model.parameters()), host_memory()
    if memory is not None and need > memory:
        sizes = f"{need / 2**30:,.1f} GiB, and this machine has {memory / 2**30:,.1f}"
        raise ValueError(f"the weights of {type(model).__name__} in the sizes of its configuration take {sizes}")


def open_automodel(path: str, config: Any, trust_remote_code: bool = False) -> tuple[nn.Module, frozenset[str]]:
    """A model of another family, with every weight from its checkpoint, and the names of those of its pooler that the
    checkpoint lacks.

    The pooler is not used here and many checkpoints lack it: zeros take its place, so that the hash of the weights
    does not depend on chance.

    Raises:
        ValueError: it cannot be opened, lacks weights, which would be random ones, has blocks that would be left out,
            or does not take images.
    """
    check_types(Path(path))
    try:
        module, report = AutoModel.from_pretrained(
            path, config=config, trust_remote_code=trust_remote_code, dtype=torch.float32, output_loading_info=True
        )
    except (OSError, MemoryError):
        raise
    except Exception as error:  # a stranger's files make transformers fail in any way there is
        raise ValueError(f"{path} cannot be opened: {one_line(error, 300)}") from error
    if module.main_input_name != "pixel_values":
        raise ValueError(f"{path} is a {type(module).__name__}, which does not take images alone")
    missing = set(report["missing_keys"])
    pooler = {name for name in missing if name.startswith("pooler.")}
    if others := sorted(missing - pooler):
        raise ValueError(f"{path} lacks weights: {', '.join(others[:3])} ({len(others)} in all)")
    weights = module.state_dict()
    known = {_NUMBER.sub("#", name) for name in weights if _NUMBER.search(name)}
    if more := sorted(name for name in report["unexpected_keys"] if _NUMBER.sub("#", name) in known):
        raise ValueError(
            f"{path} has blocks that its configuration lacks: {more[0][:80]} ({len(more)} weights in all)"
        )
    for name in pooler:
        weights[name].zero_()
    check_finite(weights, path)
    return module, frozenset(pooler)


def check_types(directory: Path) -> None:
    """Raises ValueError where a weight or a bias is stored as whole numbers, or in 8 bits: transformers would read it
    as if it were what training left.
    """
    if not any((directory / name).is_file() for name in (WEIGHTS, INDEX)):
        return  # of the Hub, or in another form
    kinds = {name: kind for name, (_shape, kind) in stored_tensors(directory).items()}
    wrong = [name for name, kind in kinds.items() if name.endswith((".weight", ".bias")) and kind not in FLOATS]
    if wrong:
        raise ValueError(
            f"{directory} holds weights that are not of floating point: {wrong[0][:80]} ({kinds[wrong[0]]})"
        )


def check_depth(config: Any, path: str) -> None:
    """Raises ValueError for more blocks than any model has: building them takes memory before a weight is read."""
    for key, value in config.to_dict().items():
        counts = value if isinstance(value, list | tuple) else [value]
        numbers = [count for count in counts if isinstance(count, int)]
        if key == "num_hidden_layers" and numbers and min(numbers) < 1:
            raise ValueError(f"{path}: {key} is {min(numbers)}, and a network has at least one block")
        if any(word in key for word in ("layer", "depth", "block")) and max(numbers, default=0) > LARGEST_DEPTH:
            raise ValueError(f"{path}: {key} is {max(numbers)}, more than the {LARGEST_DEPTH} that are built")


def config_size(config: Any) -> tuple[int, int] | None:
    """Native (height, width) by the configuration."""
    size = getattr(config, "image_size", None)
    return (size, size) if isinstance(size, int) else tuple(size) if isinstance(size, list | tuple) else None


def processor_of(path: str, trust_remote_code: bool = False) -> Any:
    """The image processor of a checkpoint, None where it brings none.

    Raises:
        ValueError: it brings one that cannot be read.
    """
    file = Path(path) / "preprocessor_config.json"
    brought = os.path.lexists(file)
    try:
        if brought and not read_object(file):
            raise ValueError("it is no file, or empty")
        return AutoImageProcessor.from_pretrained(path, trust_remote_code=trust_remote_code)
    except MemoryError:
        raise
    except Exception as error:  # a stranger's file makes transformers fail in any way there is
        if not brought and isinstance(error, OSError | ValueError):
            return None
        message = f"{file} cannot be read: {one_line(error, 300)}; without it, ImageNet's statistics are taken"
        raise ValueError(message) from error


def plain_processor(height: int, width: int, mean: Sequence[float], std: Sequence[float]) -> Any:
    """An image processor of transformers, without code of ours: resize, crop the center, normalize."""
    kind = BitImageProcessor if is_torchvision_available() else BitImageProcessorPil
    return kind(
        size={"shortest_edge": round(max(height, width) * RESIZE_RATIO)},
        crop_size={"height": height, "width": width},
        resample=PILImageResampling.BICUBIC,
        image_mean=list(mean),
        image_std=list(std),
        do_convert_rgb=True,
    )


def preprocessing_of(path: str, config: Any, processor: Any) -> tuple[tuple[int, int], list, list]:
    """(size, mean, std) of the image processor, or of the configuration and ImageNet where there is none.

    Raises:
        ValueError: a size or a statistic that no model takes.
    """
    size = config_size(config) or (224, 224)
    if processor is None:
        check_preprocessing(path, size, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        return size, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    edges = processor.crop_size if getattr(processor, "do_center_crop", False) else processor.size
    if edges and getattr(edges, "height", None) and getattr(edges, "width", None):
        size = (edges["height"], edges["width"])
    mean, std = (0.0,) * 3, (1.0,) * 3
    if getattr(processor, "do_normalize", True):
        mean, std = processor.image_mean or IMAGENET_DEFAULT_MEAN, processor.image_std or IMAGENET_DEFAULT_STD
    mean, std = ([value] if isinstance(value, int | float) else value for value in (mean, std))
    check_preprocessing(path, size, mean, std)
    return size, mean, std
