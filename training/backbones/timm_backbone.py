# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Whatever timm builds."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from modeling_visreg.checkpoint import atomic_directory, disk_errors
from modeling_visreg.conversion import read_tensors, strip_training_prefixes
from modeling_visreg.loading import WEIGHTS, read_config_object

from ..errors import one_line
from ..run_folder import Json, write_json
from .interface import LARGEST_DEPTH, Backbone, Tokens, check_preprocessing, cls_attention
from .raw_checkpoint import BACKBONE_PREFIX, PROJECTOR, load_tensors


# Where timm's training scripts keep a state dict in their checkpoints, the averaged one first.
# What of its pretrained_cfg says something about the network or its input.
_STATED = (
    "tag", "license", "input_size", "fixed_input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std",
    "pool_size", "first_conv", "classifier",
)  # fmt: skip
_LARGEST_ARGUMENT = 1 << 20
# What timm calls its blocks; the outermost of them count.
_BLOCK = re.compile(r"(Block|Bottleneck)$")
STATE_DICTS = ("state_dict_ema", "model_ema", "state_dict", "model")


class TimmBackbone(Backbone):
    """What `timm.create_model` opens and `forward_intermediates` reads.

    Attributes:
        model_args: arguments that make the network from its architecture's name.
    """

    def __init__(self, name: str, module: nn.Module, model_args: Json | None = None):
        import timm

        self.model_args = model_args or {}
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

    def save(self, directory: str | Path) -> None:
        """A folder that `timm.create_model("local-dir:FOLDER", pretrained=True)` and AutoModel, by its TimmWrapper,
        read.
        """
        weights = {name: tensor.detach().contiguous() for name, tensor in self.module.state_dict().items()}
        with atomic_directory(directory, overwrite=True) as staging, disk_errors(directory):
            save_file(weights, staging / WEIGHTS, metadata={"format": "pt"})
            write_json(staging / "config.json", self.config_dict())

    def save_processor(self, directory: Path) -> None:
        """Nothing: timm's config.json says how images are prepared."""

    def config_dict(self) -> Json:
        """As timm writes it, without what says where other weights lie; the number of classes is no argument of the
        network here, because TimmWrapper gives its own.
        """
        known = {name: value for name, value in self.module.pretrained_cfg.items() if value is not None}
        stated = {name: known[name] for name in _STATED if name in known}
        stated |= {"input_size": [len(self.mean), *self.native_size], "mean": list(self.mean), "std": list(self.std)}
        return {
            "architecture": known["architecture"],
            "num_classes": 0,
            "num_features": self.module.num_features,
            **({"model_args": self.model_args} if self.model_args else {}),
            "pretrained_cfg": stated | {"custom_load": False, "num_classes": 0},
        }

    def rebuilt(self) -> "TimmBackbone":
        network, arguments = build_timm(self.module.pretrained_cfg["architecture"], **self.model_args)
        network.pretrained_cfg.update(self.module.pretrained_cfg)
        return TimmBackbone(self.name, network, arguments)

    def enable_activation_checkpointing(self) -> None:
        if not hasattr(self.module, "set_grad_checkpointing"):
            raise ValueError(f"activation_checkpointing: {type(self.module).__name__} of timm has none")
        self.module.set_grad_checkpointing(True)

    def architecture(self) -> str:
        heads = [module.num_heads for module in self.module.modules() if hasattr(module, "num_heads")]
        return f"{self.module!r} heads {heads}"


def timm_architecture(name: str) -> str | None:
    """What stands behind `timm:` or `timm/`, None of any other name; a folder of that name is a folder."""
    if name.startswith("timm:"):
        return name.removeprefix("timm:")
    return name.removeprefix("timm/") if name.startswith("timm/") and not Path(name).exists() else None


def open_timm(name: str, **changes: Any) -> TimmBackbone:
    """`timm/NAME` or `timm:NAME` with timm's weights, or `timm:NAME:FILE` with those of a file; `changes` are
    arguments of the network.

    Raises:
        ValueError: timm is not installed, or the architecture or the file is not known.
    """
    architecture, _, weights = (timm_architecture(name) or "").partition(":")
    if weights and not Path(weights).is_file():
        raise ValueError(f"{name}: there is no file {weights}")
    network, arguments = build_timm(architecture, pretrained=not weights, **changes)
    if weights:
        load_file(network, weights)
    return TimmBackbone(name, network, arguments)


def build_timm(architecture: str, pretrained: bool = False, **arguments: Any) -> tuple[nn.Module, Json]:
    """A network of timm without its classifier, and the arguments that make it again.

    Args:
        architecture: by timm's name, with a tag or without.
        pretrained: take timm's weights, from the Hub.
        **arguments: of the network; None leaves one out.

    Raises:
        ValueError: timm is not installed, knows no such architecture, or the architecture takes no such argument.
    """
    timm = import_timm()
    if not timm.is_model(architecture.split(".")[0]):
        raise ValueError(f"timm knows no model {architecture!r}; `timm.list_models()` lists them")
    arguments = {name: value for name, value in arguments.items() if value is not None}
    try:
        dynamic = {"dynamic_img_size": True}  # of those whose position embedding can follow the size
        network = timm.create_model(architecture, pretrained=pretrained, num_classes=0, **dynamic | arguments)
        return network, dynamic | arguments
    except TypeError:  # an argument that this architecture does not have
        pass
    try:
        return timm.create_model(architecture, pretrained=pretrained, num_classes=0, **arguments), arguments
    except (TypeError, RuntimeError, ValueError) as error:
        raise ValueError(f"timm makes no {architecture}: {one_line(error, 300)}") from error


def import_timm() -> Any:
    """The package timm; raises ValueError where it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise ValueError("models of timm need the package timm: pip install timm") from error
    return timm


def is_timm_config(config: Json) -> bool:
    """Whether a config.json is timm's, which is not one of transformers."""
    return "architecture" in config and "model_type" not in config


def open_timm_folder(name: str, directory: str | Path, **changes: Any) -> TimmBackbone:
    """A folder in timm's form, as `TimmBackbone.save` and timm write it, or a run's with the projector.

    The network is built without memory first, and compared with the headers of the weights; `changes` are arguments in
    the place of the folder's.

    Raises:
        ValueError: what it says is no network of timm, or the weights are not those of the network.
    """
    directory = Path(directory)
    config = read_config_object(directory / "config.json")
    architecture, arguments = config.get("architecture"), config.get("model_args") or {}
    if not isinstance(architecture, str) or not isinstance(arguments, dict):
        raise ValueError(f"{directory / 'config.json'} names no architecture of timm")
    check_arguments(arguments, directory)
    prefix = BACKBONE_PREFIX if PROJECTOR in config else ""
    with torch.device("meta"):
        network, _arguments = build_timm(architecture, **arguments)
    load_tensors(network, directory, prefix)
    network, arguments = build_timm(architecture, **arguments | changes)
    load_tensors(network, directory, prefix)
    network.pretrained_cfg.update(stated_preprocessing(config.get("pretrained_cfg"), str(directory)))
    return TimmBackbone(name, network, arguments)


def stated_preprocessing(stated: Any, path: str) -> Json:
    """What timm's config.json says about the input; raises ValueError for what no network takes."""
    taken = {name: value for name, value in stated.items() if name in _STATED} if isinstance(stated, dict) else {}
    if not {"input_size", "mean", "std"} <= taken.keys():
        raise ValueError(f"{path}: config.json does not say size, mean and std of the images")
    size = taken["input_size"]
    if not isinstance(size, list) or len(size) != 3:
        raise ValueError(f"{path}: images of {size} are not taken")
    check_preprocessing(path, size[1:], taken["mean"], taken["std"])
    return taken


def check_arguments(arguments: Json, directory: Path) -> None:
    """Raises ValueError for numbers that no network of timm has: building one takes time before a weight is read."""
    stack: list[Any] = list(arguments.values())
    while stack:
        value = stack.pop()
        if isinstance(value, list | tuple):
            stack += value
        elif isinstance(value, dict):
            stack += value.values()
        elif isinstance(value, int | float) and not abs(value) <= _LARGEST_ARGUMENT:
            raise ValueError(f"{directory / 'config.json'}: {value} is no argument that a network of timm takes")
    depth = arguments.get("depth", arguments.get("depths", arguments.get("layers", 0)))
    blocks = depth if isinstance(depth, list) else [depth]
    if not all(isinstance(count, int) and count <= LARGEST_DEPTH for count in blocks):
        raise ValueError(f"{directory / 'config.json'}: {depth} blocks are more than the {LARGEST_DEPTH} of any model")


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
