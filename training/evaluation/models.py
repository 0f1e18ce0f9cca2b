# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""One face for every frozen vision model: a directory or Hub id that AutoModel opens, or `timm:NAME[:WEIGHTS]`.

    model = open_model("timm:vit_small_patch16_224")
    rows = model.embed(pixels, layers=4)        # (B, 4 d)

B images, N patches, d width, P prefix tokens (CLS first, then registers). All tokens are taken after the final norm.
"""

import hashlib
import inspect
import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from modeling_visreg.checkpoint import weights_digest


POOLINGS = ("cls", "mean", "both")

# What vision models in transformers call their final norm.
_FINAL_NORMS = ("layernorm", "layer_norm", "norm", "post_layernorm")
# They say nothing about what a model computes.
_VOLATILE_CONFIG = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "auto_map", "architectures")


class Tokens(NamedTuple):
    """`prefix`: (B, P, d), P = 0 for models without CLS; `patches`: (B, N, d)."""

    prefix: torch.Tensor
    patches: torch.Tensor


class FrozenModel(ABC):
    """A vision model in evaluation mode, on its device.

    Attributes:
        name: as the user gave it.
        module: the network; its parameters ask for no gradient.
        native_size: (height, width) in pixels it was made for.
        mean, std: of its input, one value a channel.
        patch_size: side of a patch in pixels, None for models without patches.
    """

    def __init__(self, name: str, module: nn.Module, native_size, mean, std, patch_size: int | None):
        self.name, self.module = name, module.eval().requires_grad_(False)
        self.native_size, self.patch_size = tuple(native_size), patch_size
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self._weights_hash = None

    @abstractmethod
    def tokens(self, pixels: torch.Tensor, layers: int = 1) -> list[Tokens]:
        """Tokens of the last `layers` blocks, first to last, each through the final norm."""

    @abstractmethod
    def attention(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, heads, h, w): how much CLS attends to each patch in the last block."""

    @abstractmethod
    def architecture(self) -> str:
        """Everything but the weights that decides what the network computes."""

    def to(self, device: torch.device | str) -> "FrozenModel":
        self.module.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def embed(self, pixels: torch.Tensor, layers: int = 1, pooling: str | None = None) -> torch.Tensor:
        """(B, layers * d), or twice as wide for `both`, from normalised pixels (B, C, H, W).

        Args:
            layers: blocks from the end that are concatenated.
            pooling: `cls`, `mean` of the patches or `both`; None takes CLS where there is one, else the mean.

        Raises:
            RuntimeError: the network is in training mode (drop path would be on).
            ValueError: `pooling` needs a CLS token and there is none.
        """
        self.assert_frozen()
        parts = [pool(tokens, pooling) for tokens in self.tokens(pixels, layers)]
        return torch.cat(parts, dim=1)

    def patch_map(self, pixels: torch.Tensor) -> torch.Tensor:
        """Patch tokens of the last block as a map (B, d, h, w)."""
        self.assert_frozen()
        patches = self.tokens(pixels)[-1].patches
        return patches.transpose(1, 2).unflatten(2, self.grid(pixels, patches.shape[1])).contiguous()

    def grid(self, pixels: torch.Tensor, count: int) -> tuple[int, int]:
        """Rows and columns of `count` patches."""
        height, width = pixels.shape[-2:]
        rows = round((count * height / width) ** 0.5)
        if rows == 0 or count % rows:
            raise ValueError(f"{self.name}: {count} patch tokens of {height} x {width} pixels make no grid")
        return rows, count // rows

    def assert_frozen(self) -> None:
        if any(module.training for module in self.module.modules()):
            raise RuntimeError(f"{self.name} is in training mode: drop path and batch norm would falsify its features")

    @property
    def weights_hash(self) -> str:
        """`weights_digest` of all weights."""
        if self._weights_hash is None:
            self._weights_hash = weights_digest(self.module.state_dict())
        return self._weights_hash

    def description(self) -> dict[str, Any]:
        """For the record of a result, and for the key of cached features."""
        architecture = hashlib.sha256(self.architecture().encode()).hexdigest()[:16]
        parameters = sum(parameter.numel() for parameter in self.module.parameters())
        return {
            "name": self.name,
            "class": type(self.module).__name__,
            "weights": self.weights_hash,
            "architecture": architecture,
            "parameters": parameters,
        }


class TransformersModel(FrozenModel):
    """What AutoModel opens."""

    def __init__(self, name: str, module: nn.Module, native_size, mean, std):
        config = module.config
        patch = getattr(config, "patch_size", None)
        super().__init__(name, module, native_size, mean, std, patch[0] if isinstance(patch, list | tuple) else patch)
        self.accepted = inspect.signature(module.forward).parameters
        if config.model_type == "vit_mae":
            config.mask_ratio = 0.0  # its encoder drops 75 % of the patches, at random, even in evaluation mode

    def arguments(self, pixels: torch.Tensor) -> dict[str, Any]:
        if self.module.config.model_type == "vit_mae":
            count = (pixels.shape[-2] // self.patch_size) * (pixels.shape[-1] // self.patch_size)
            # Its patches are sorted by this noise: ascending leaves them in their places.
            noise = torch.arange(count, device=pixels.device, dtype=torch.float32).expand(len(pixels), -1)
            return {"noise": noise, "interpolate_pos_encoding": True}
        if "interpolate_pos_encoding" in self.accepted and tuple(pixels.shape[-2:]) != config_size(self.module.config):
            return {"interpolate_pos_encoding": True}
        return {}

    def tokens(self, pixels: torch.Tensor, layers: int = 1) -> list[Tokens]:
        output = self.module(pixel_values=pixels, output_hidden_states=layers > 1, **self.arguments(pixels))
        # The last state is taken from where the model itself normalised it: in some families the last of
        # `hidden_states` is normalised already, in others not.
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
        self.assert_frozen()
        before = self.module.config._attn_implementation
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


class TimmModel(FrozenModel):
    """What `timm.create_model` opens and `forward_intermediates` reads."""

    def __init__(self, name: str, module: nn.Module):
        import timm

        data = timm.data.resolve_model_data_config(module)
        patch = getattr(getattr(module, "patch_embed", None), "patch_size", None)
        super().__init__(name, module, data["input_size"][1:], data["mean"], data["std"], patch[0] if patch else None)
        if not hasattr(module, "forward_intermediates"):
            raise ValueError(f"{name}: timm gives no intermediate features of {type(module).__name__}")

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
        self.assert_frozen()
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


def pool(tokens: Tokens, pooling: str | None) -> torch.Tensor:
    """(B, d), or (B, 2 d) for `both`."""
    has_cls = tokens.prefix.shape[1] > 0
    pooling = pooling or ("cls" if has_cls else "mean")
    if pooling not in POOLINGS:
        raise ValueError(f"pooling is one of {', '.join(POOLINGS)}, not {pooling!r}")
    if pooling != "mean" and not has_cls:
        raise ValueError(f"the model has no CLS token: pooling {pooling!r} is not possible, use mean")
    parts = [tokens.prefix[:, 0]] if pooling != "mean" else []
    parts += [tokens.patches.mean(1)] if pooling != "cls" else []
    return torch.cat(parts, dim=1)


def cls_attention(model: FrozenModel, weights: torch.Tensor, prefix: int, pixels: torch.Tensor) -> torch.Tensor:
    """(B, heads, h, w) from attention weights (B, heads, P + N, P + N)."""
    if prefix == 0:
        raise ValueError(f"{model.name} has no CLS token whose attention could be shown")
    row = weights[:, :, 0, prefix:]
    return row.unflatten(2, model.grid(pixels, row.shape[2]))


def open_model(name: str, trust_remote_code: bool = False) -> FrozenModel:
    """Opens `timm:NAME` (timm's weights), `timm:NAME:FILE` (weights of a file) or whatever AutoModel opens.

    A run folder of `visreg pretrain` stands for the model in it.

    Raises:
        ValueError, OSError: the name is not known, or the model does not take images.
    """
    if name.startswith("timm:"):
        return open_timm(name)
    from transformers import AutoModel

    import modeling_visreg  # noqa: F401 - makes AutoModel know our checkpoints

    path = name
    if (Path(name) / "model" / "config.json").is_file() and not (Path(name) / "config.json").is_file():
        path = str(Path(name) / "model")
    module = AutoModel.from_pretrained(path, trust_remote_code=trust_remote_code, dtype=torch.float32)
    if module.main_input_name != "pixel_values":
        raise ValueError(f"{name} is a {type(module).__name__}, which does not take images alone")
    size, mean, std = preprocessing(path, module.config, trust_remote_code)
    return TransformersModel(name, module, size, mean, std)


def open_timm(name: str) -> TimmModel:
    try:
        import timm
    except ImportError as error:
        raise ValueError("models of timm need the package timm: pip install timm") from error
    architecture, _, weights = name.removeprefix("timm:").partition(":")
    if weights and not Path(weights).is_file():
        raise ValueError(f"{name}: there is no file {weights}")
    if not timm.is_model(architecture.split(".")[0]):
        raise ValueError(f"timm knows no model {architecture!r}; `timm.list_models()` lists them")
    source: dict[str, Any] = {"checkpoint_path": weights} if weights else {"pretrained": True}
    vit = "dynamic_img_size" in inspect.signature(timm.models.VisionTransformer).parameters
    if vit and architecture.startswith(("vit_", "deit_")):
        source["dynamic_img_size"] = True
    return TimmModel(name, timm.create_model(architecture, num_classes=0, **source))


def config_size(config: Any) -> tuple[int, int] | None:
    """Native (height, width) by the configuration."""
    size = getattr(config, "image_size", None)
    return (size, size) if isinstance(size, int) else tuple(size) if size else None


def preprocessing(path: str, config: Any, trust_remote_code: bool) -> tuple[tuple[int, int], list, list]:
    """(size, mean, std) of the image processor, or of the configuration and ImageNet where there is none."""
    from transformers import AutoImageProcessor

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
