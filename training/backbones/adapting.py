# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""How much of a trained network is trained on: rates that fall with depth, frozen blocks, or adapters of low rank.

Layers are numbered as `layers_of` says: embedding 0, blocks 1 to L, what follows them (norm, head) L + 1.

LoRA (arXiv 2106.09685) leaves a linear layer W as it is and learns B (out, R) and A (R, in) beside it; PEFT's modules
do the arithmetic. What is saved for use is W + s B A, which computes the same without them (`merged`).
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from ..run_folder import ADAPTER_FILES, write_json
from .interface import Backbone
from .options import AdaptOptions


_NAME = "default"  # PEFT's name of the one adapter
_BASE = ".base_layer."
_DOWN, _UP = f".lora_A.{_NAME}.weight", f".lora_B.{_NAME}.weight"


def adapt(backbone: Backbone, options: AdaptOptions) -> None:
    """Freezes, and adds adapters, as the options of a run say.

    Raises:
        ValueError: the network has not so many blocks, no linear layers, or blocks that are not known.
    """
    if not options.freeze_blocks and options.lora_rank is None:
        return
    network = backbone.module
    layers = {name: backbone.layer_of(name) for name, _parameter in network.named_parameters()}
    if options.freeze_blocks:
        freeze_blocks(network, layers, options.freeze_blocks)
    if options.lora_rank is not None:
        add_lora(network, layers, options.lora_rank, options.freeze_blocks)


def layer_rates(layers: Iterable[int], decay: float, top: int) -> dict[int, float]:
    """Share of the learning rate for each layer: `decay ** (top - layer)`, and the whole of it from `top` on.

    Source: BEiT and MAE fine-tune so, where the head is the top (arXiv 2106.08254).
    """
    return {layer: decay ** max(0, top - layer) for layer in layers}


def depth_rates(backbone: Backbone, decay: float) -> dict[nn.Parameter, float]:
    """Share of the learning rate of each parameter of a backbone whose head, the projector, has all of it.

    Empty for a `decay` of 1.

    Raises:
        ValueError: the blocks of the network are not known.
    """
    if decay == 1:
        return {}
    layers = {parameter: backbone.layer_of(name) for name, parameter in backbone.module.named_parameters()}
    shares = layer_rates(layers.values(), decay, max(layers.values()))
    return {parameter: shares[layer] for parameter, layer in layers.items()}


def freeze_blocks(network: nn.Module, layers: Mapping[str, int], count: int) -> None:
    """The embedding and the first `count` blocks learn nothing, and stay in evaluation mode for good.

    Drop path and batch norm in them do what they do in evaluation: noise and statistics that nothing follows would
    only spoil what comes after.

    Args:
        network: a backbone.
        layers: number of the layer of each of its parameters, by name.
        count: of blocks.

    Raises:
        ValueError: there are fewer blocks.
    """
    blocks = number_of_blocks(layers)
    if count > blocks:
        raise ValueError(f"freeze_blocks: the network has {blocks} blocks, not {count}")
    for name, parameter in network.named_parameters():
        if layers[name] <= count:
            parameter.requires_grad_(False)
    for module in network.modules():
        own = list(module.parameters())
        if own and not any(parameter.requires_grad for parameter in own):
            module.eval()
            module.train = MethodType(_stay, module)  # type: ignore[method-assign]
    drop_path = getattr(getattr(network, "encoder", None), "drop_path_table", None)
    if drop_path is not None:  # our ViT draws for all blocks at once: a rate of 0, which leaves 1
        drop_path[:, : 2 * count] = torch.tensor([[0.0], [1.0]], device=drop_path.device)


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    """In the place of `train`: a frozen module is never in training mode."""
    return module


def number_of_blocks(layers: Mapping[str, int]) -> int:
    """L, from the number of the layer of each parameter: the last is what follows the blocks."""
    return max(layers.values()) - 1


def add_lora(network: nn.Module, layers: Mapping[str, int], rank: int, frozen: int = 0) -> None:
    """Puts an adapter beside each linear layer of the blocks after the first `frozen`; all else stops learning.

    B starts as zeros, so that the network computes what it computed. The scale is 1 whatever the rank, no dropout.
    A is drawn from torch's global generator.

    Args:
        network: a backbone.
        layers: number of the layer of each of its parameters, by name.
        rank: R.
        frozen: blocks without adapters.

    Raises:
        ValueError: PEFT is not installed, or these blocks have no linear layers.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("lora_rank needs the package peft: pip install 'visreg[lora]'") from error
    inside = range(frozen + 1, number_of_blocks(layers) + 1)
    found = {name: module for name, module in network.named_modules() if isinstance(module, nn.Linear)}
    targets = [name for name in found if layers[f"{name}.weight"] in inside]
    if not targets:
        after = f" after the first {frozen}" if frozen else ""
        raise ValueError(
            f"lora_rank: {type(network).__name__} has no linear layers in its blocks{after}; --freeze_blocks and "
            "--layer_decay work for any network"
        )
    inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=targets), network)


def has_lora(network: nn.Module) -> bool:
    """Whether `add_lora` was called on it, or on a part of it."""
    return any(name.endswith(_DOWN) for name, _parameter in network.named_parameters())


def plain_name(name: str) -> str:
    """The name of a parameter before there were adapters; that of A and B is that of the weight they change."""
    for part in (_DOWN, _UP):
        if name.endswith(part):
            return name.removesuffix(part) + ".weight"
    return name.replace(_BASE, ".")


def merged(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict with the adapters added to the weights beside them, under the names of the network without them."""
    result = {}
    for name, tensor in weights.items():
        if name.endswith((_DOWN, _UP)):
            continue
        stem, base, _kind = name.rpartition(_BASE + "weight")
        if base:
            tensor = tensor + weights[stem + _UP] @ weights[stem + _DOWN]
        result[plain_name(name)] = tensor
    return result


def unmerged(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a state dict that `merged` changes: adapters, and the layers beside which they are."""
    return {name: tensor for name, tensor in weights.items() if plain_name(name) != name}


def write_adapter(weights: Mapping[str, torch.Tensor], folder: Path, base: str | None) -> None:
    """The adapters alone, as PEFT reads them: `PeftModel.from_pretrained(AutoModel.from_pretrained(base), folder)`.

    Args:
        weights: state dict of the backbone with its adapters.
        folder: that is there.
        base: Hub id of the weights that the run started from, if they have one.
    """
    from peft import LoraConfig

    parts = {name: tensor for name, tensor in weights.items() if name.endswith((_DOWN, _UP))}
    targets = sorted(name.removesuffix(_DOWN) for name in parts if name.endswith(_DOWN))
    rank = next(len(tensor) for name, tensor in parts.items() if name.endswith(_DOWN))
    config: dict[str, Any] = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets).to_dict()
    config |= {"base_model_name_or_path": base, "inference_mode": True, "target_modules": targets}
    write_json(folder / ADAPTER_FILES[0], json.loads(json.dumps(config, default=str)))
    tensors = {f"base_model.model.{name.replace(f'.{_NAME}.', '.')}": part for name, part in parts.items()}
    save_file({name: part.contiguous() for name, part in tensors.items()}, folder / ADAPTER_FILES[1], {"format": "pt"})
