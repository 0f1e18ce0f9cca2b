# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Whatever timm builds."""

import inspect
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from modeling_visreg.conversion import read_tensors, strip_training_prefixes

from ..errors import one_line
from .interface import Backbone, Tokens, cls_attention


# Where timm's training scripts keep a state dict in their checkpoints, the averaged one first.
# What timm calls its blocks; the outermost of them count.
_BLOCK = re.compile(r"(Block|Bottleneck)$")
STATE_DICTS = ("state_dict_ema", "model_ema", "state_dict", "model")


class TimmBackbone(Backbone):
    """What `timm.create_model` opens and `forward_intermediates` reads."""

    def __init__(self, name: str, module: nn.Module):
        import timm

        data = timm.data.resolve_model_data_config(module)
        patch = getattr(getattr(module, "patch_embed", None), "patch_size", None)
        super().__init__(name, module, data["input_size"][1:], data["mean"], data["std"], patch[0] if patch else None)
        if not hasattr(module, "forward_intermediates"):
            raise ValueError(f"{name}: timm gives no intermediate features of {type(module).__name__}")

    def blocks(self) -> list[nn.Module]:
        found: list[nn.Module] = []
        inside: set[int] = set()
        for layer in self.module.modules():
            if id(layer) not in inside and _BLOCK.search(type(layer).__name__):
                found.append(layer)
                inside |= {id(child) for child in layer.modules()}
        return found

    def feature(self, pixels: torch.Tensor) -> torch.Tensor:
        """CLS after the final norm; of a network without one, what timm pools and normalizes for its classifier."""
        if getattr(self.module, "num_prefix_tokens", 0):
            return super().feature(pixels)
        return self.module.forward_head(self.module.forward_features(pixels), pre_logits=True).flatten(1)

    def tokens(self, pixels: torch.Tensor, layers: int = 1) -> list[Tokens]:
        options: dict[str, Any] = {"indices": layers, "intermediates_only": True}
        if self.patch_size:
            options |= {"norm": True, "return_prefix_tokens": True, "output_fmt": "NLC"}
        states = self.module.forward_intermediates(pixels, **options)
        return [self.split(state) for state in states]

    def split(self, state: Any) -> Tokens:
        if isinstance(state, tuple):
            return Tokens(state[1], state[0])
        rows = state.flatten(2).transpose(1, 2) if state.ndim == 4 else state
        return Tokens(rows[:, :0], rows)

    def attention(self, pixels: torch.Tensor) -> torch.Tensor:
        self.check_evaluating()
        last = getattr(self.module, "blocks", [None])[-1]
        if not hasattr(getattr(last, "attn", None), "attn_drop"):
            raise ValueError(f"{self.name}: no attention is known in the last block of {type(self.module).__name__}")
        caught = []
        hook = last.attn.attn_drop.register_forward_pre_hook(lambda _module, args: caught.append(args[0]))
        fused, last.attn.fused_attn = last.attn.fused_attn, False
        try:
            self.module.forward_features(pixels)
        finally:
            last.attn.fused_attn = fused
            hook.remove()
        return cls_attention(self, caught[0], self.module.num_prefix_tokens, pixels)

    def architecture(self) -> str:
        heads = [module.num_heads for module in self.module.modules() if hasattr(module, "num_heads")]
        return f"{self.module!r} heads {heads}"


def open_timm(name: str) -> TimmBackbone:
    """`timm:NAME` with timm's weights, or `timm:NAME:FILE` with those of a file.

    Raises:
        ValueError: timm is not installed, or the architecture or the file is not known.
    """
    try:
        import timm
    except ImportError as error:
        raise ValueError("models of timm need the package timm: pip install timm") from error
    architecture, _, weights = name.removeprefix("timm:").partition(":")
    if weights and not Path(weights).is_file():
        raise ValueError(f"{name}: there is no file {weights}")
    if not timm.is_model(architecture.split(".")[0]):
        raise ValueError(f"timm knows no model {architecture!r}; `timm.list_models()` lists them")
    options: dict[str, Any] = {}
    vit = "dynamic_img_size" in inspect.signature(timm.models.VisionTransformer).parameters
    if vit and architecture.startswith(("vit_", "deit_")):
        options["dynamic_img_size"] = True
    network = timm.create_model(architecture, pretrained=not weights, num_classes=0, **options)
    if weights:
        load_file(network, weights)
    return TimmBackbone(name, network)


def load_file(network: nn.Module, path: str) -> None:
    """The weights of a file into a network of timm.

    They are read here: timm up to 1.0.15 runs the code of a pickle, later versions end in a traceback.

    Raises:
        ValueError: the file holds something else than tensors, or not exactly those of the network.
    """
    tensors = strip_training_prefixes(read_tensors(path, STATE_DICTS))
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the architecture: {one_line(error, 300)}") from error
