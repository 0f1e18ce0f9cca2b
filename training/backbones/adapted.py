# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""A backbone of another family in training: where it comes from, whether it will do, and its projector.

    start = find_start("facebook/dinov2-small")            # None for a checkpoint of ours
    backbone = start.build(weights=True)                   # the interface around Dinov2Model
    model = AdaptedModel(backbone)                         # the module that is trained and checkpointed

B images, V views, d width of the backbone, D projection dimension.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from modeling_visreg import VISRegViTConfig, VISRegViTForPreTraining
from modeling_visreg.modeling_visreg import VISRegViTProjector

from ..errors import one_line
from ..run_folder import Json, model_directory
from .interface import Backbone, check_name
from .raw_checkpoint import ABSENT, PROJECTOR, PROJECTOR_PREFIX, load_tensors, write_raw
from .timm_backbone import TimmBackbone, build_timm, is_timm_config, open_timm, open_timm_folder, timm_architecture
from .transformers_backbone import (
    build_transformers,
    open_transformers,
    plain_processor,
    read_config_of,
    read_vision_config,
    wrap_transformers,
)


class Start(ABC):
    """What a run starts from, by name: of its architecture only, or of its weights too.

    Attributes:
        name: as the user gave it.
        patch_size: of a patch in pixels, None for a network without patches.
    """

    def __init__(self, name: str, patch_size: int | None):
        self.name, self.patch_size = name, patch_size

    @abstractmethod
    def opened(self, drop_path_rate: float | None) -> Backbone:
        """With its weights.

        Raises:
            ValueError, OSError: they cannot be read, or the network has no drop path.
        """

    @abstractmethod
    def fresh(self, image_size: int, drop_path_rate: float | None) -> Backbone:
        """With random weights, drawn from torch's global generator, and `image_size` pixels as its native size, which
        a position embedding follows.

        Raises:
            ValueError: the network has no drop path.
        """


class TransformersStart(Start):
    """A folder or Hub id of a model of transformers."""

    def __init__(self, name: str, path: str):
        self.path, self.config = path, read_vision_config(path)
        patch = getattr(self.config, "patch_size", None)
        super().__init__(name, patch[0] if isinstance(patch, list | tuple) else patch)

    def opened(self, drop_path_rate: float | None) -> Backbone:
        return open_transformers(self.name, change=lambda config: self.set_drop_path(config, drop_path_rate))

    def fresh(self, image_size: int, drop_path_rate: float | None) -> Backbone:
        self.set_drop_path(self.config, drop_path_rate)
        if getattr(self.config, "image_size", None) is not None:
            self.config.image_size = image_size
        backbone = wrap_transformers(self.name, self.path, build_transformers(self.config))
        backbone.native_size = (image_size, image_size)
        backbone.processor = plain_processor(image_size, image_size, backbone.mean, backbone.std)
        return backbone

    def set_drop_path(self, config: Any, rate: float | None) -> None:
        if rate is not None and not hasattr(config, "drop_path_rate"):
            raise ValueError(f"drop_path_rate: {self.name} has no drop path; leave it out, or --drop_path_rate none")
        if rate is not None:
            config.drop_path_rate = rate


class TimmStart(Start):
    """An architecture of timm by name, with timm's weights, or a folder in timm's form."""

    def __init__(self, name: str, folder: str | None):
        self.folder = folder
        if folder is None:
            with torch.device("meta"):
                network, _arguments = build_timm(timm_architecture(name) or "")
            like = TimmBackbone(name, network)
        else:
            like = open_timm_folder(name, folder)
        self.architecture, self.arguments = like.module.pretrained_cfg["architecture"], like.model_args
        self.pretrained_cfg = dict(like.module.pretrained_cfg)
        super().__init__(name, like.patch_size)

    def opened(self, drop_path_rate: float | None) -> Backbone:
        arguments = {"drop_path_rate": drop_path_rate}
        if self.folder is None:
            return open_timm(self.name, **arguments)
        return open_timm_folder(self.name, self.folder, **arguments)

    def fresh(self, image_size: int, drop_path_rate: float | None) -> Backbone:
        sized = {"img_size": image_size} if self.patch_size else {}
        arguments = self.arguments | sized | {"drop_path_rate": drop_path_rate}
        network, arguments = build_timm(self.architecture, **arguments)
        network.pretrained_cfg.update(self.pretrained_cfg | {"input_size": (3, image_size, image_size)})
        return TimmBackbone(self.name, network, arguments)


def find_start(name: str) -> Start | None:
    """What stands behind a folder, a Hub id or a name of timm; None for a checkpoint of a VISReg ViT.

    Raises:
        ValueError, OSError: there is no such thing, it is gated, or it does not take images alone.
    """
    check_name(name)
    if timm_architecture(name) is not None:
        return TimmStart(name, None)
    path = model_directory(name)
    try:
        content = read_config_of(path)
    except OSError as error:
        raise OSError(f"{name} cannot be read: {one_line(error, 300)}") from error
    if content.get("model_type") == VISRegViTConfig.model_type:
        return None
    return TimmStart(name, path) if is_timm_config(content) else TransformersStart(name, path)


class AdaptedModel(nn.Module):
    """A backbone of any family with the projector whose output the VISReg objective shapes.

    Args:
        interface: around the backbone, which becomes a part of this module.
        projection_size: D; default: a third of the backbone's width, as the paper's ViT-B, H and g have it.
        projector_hidden_size: width of its two hidden layers; default: 2048 (paper).
        projector_act: gelu or relu; default: gelu.
    """

    def __init__(
        self,
        interface: Backbone,
        projection_size: int | None = None,
        projector_hidden_size: int | None = None,
        projector_act: str | None = None,
    ):
        super().__init__()
        self.interface = interface
        given = {
            "projection_size": projection_size or max(1, interface.width // 3),
            "projector_hidden_size": projector_hidden_size,
            "projector_act": projector_act,
        }
        sizes = {name: value for name, value in given.items() if value is not None}
        self.config = VISRegViTConfig(hidden_size=interface.width, num_attention_heads=1, **sizes)
        self.backbone = interface.module
        self.projector = VISRegViTProjector(self.config)

    project = VISRegViTForPreTraining.project

    @property
    def base_model(self) -> nn.Module:
        """The backbone, of its native class."""
        return self.backbone

    def projector_sizes(self) -> Json:
        """What makes the projector again."""
        names = ("hidden_size", "projection_size", "projector_hidden_size", "projector_act")
        return {name: getattr(self.config, name) for name in names}

    def rebuilt(self) -> "AdaptedModel":
        """The same network without its adapters, if it has any, and with random weights."""
        sizes = self.projector_sizes()
        del sizes["hidden_size"]
        return AdaptedModel(self.interface.rebuilt(), **sizes)

    def save_pretrained(self, directory: str | Path, state_dict: Mapping[str, torch.Tensor] | None = None) -> None:
        """To go on from, bit for bit; `open_backbone` reads the backbone of it. Raises OSError if the disk refuses."""
        weights = self.state_dict() if state_dict is None else state_dict
        absent = sorted(getattr(self.interface, "absent", ()))  # of timm's there are none
        config = self.interface.config_dict() | ({ABSENT: absent} if absent else {})
        write_raw(Path(directory), weights, config, self.projector_sizes())
        self.interface.save_processor(Path(directory))

    def take_projector(self, start: str) -> bool:
        """Takes over the projector in or beside a folder if it has these sizes; returns whether it did."""
        directory = Path(model_directory(start))
        for path in (directory, directory / "pretraining", directory.parent / "pretraining"):
            if (path / "config.json").is_file() and read_config_of(str(path)).get(PROJECTOR) == self.projector_sizes():
                load_tensors(self.projector, path, PROJECTOR_PREFIX)
                return True
        return False


def check_sizes(backbone: Backbone, sizes: Iterable[int]) -> None:
    """One image of each size (pixels of a side) through the network, on its device.

    Raises:
        ValueError: it does not take one of them.
    """
    with backbone.evaluating(), torch.no_grad():
        for size in sizes:
            try:
                backbone.feature(torch.zeros(1, len(backbone.mean), size, size, device=backbone.device))
            except Exception as error:  # networks refuse a size in any way there is
                raise ValueError(
                    f"{backbone.name} does not take images of {size} x {size} pixels: {one_line(error, 200)}"
                ) from error


def freeze_unused(backbone: Backbone, size: int) -> list[str]:
    """Freezes the parameters that the feature does not depend on, such as a pooler or the token of masked patches.

    With several processes, gradients that never come would be waited for.

    Returns:
        Their names.
    """
    named = [(name, value) for name, value in backbone.module.named_parameters() if value.requires_grad]
    with backbone.evaluating(), torch.enable_grad():
        feature = backbone.feature(torch.zeros(1, len(backbone.mean), size, size, device=backbone.device))
        gradients = torch.autograd.grad(feature.sum(), [value for _name, value in named], allow_unused=True)
    unused = [(name, value) for (name, value), gradient in zip(named, gradients, strict=True) if gradient is None]
    for _name, value in unused:
        value.requires_grad_(False)
    return [name for name, _value in unused]


def has_batch_norm(module: nn.Module) -> bool:
    """Whether statistics of the batch take part in what a network computes in training."""
    return any(isinstance(layer, _BatchNorm) for layer in module.modules())
