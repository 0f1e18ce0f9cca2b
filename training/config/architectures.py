# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Backbones by name (paper: models table; vit_tiny is ours), and the configuration that a run's options make."""

from typing import TYPE_CHECKING, Any

from ..errors import UserError
from ..run_folder import Json, model_directory


if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from modeling_visreg import VISRegViTConfig

    from .options import PretrainOptions


# width, depth, heads, patch, drop path, projection dimension; the MLP is 4 x width unless named.
ARCHITECTURES: dict[str, Json] = {
    "vit_tiny": {"size": (192, 12, 3), "patch_size": 16, "drop_path_rate": 0.1, "projection_size": 128},
    "vit_small": {"size": (384, 12, 6), "patch_size": 8, "drop_path_rate": 0.1, "projection_size": 128},
    "vit_base": {"size": (768, 12, 12), "patch_size": 16, "drop_path_rate": 0.1, "projection_size": 256},
    "vit_large": {"size": (1024, 24, 16), "patch_size": 14, "drop_path_rate": 0.1, "projection_size": 384},
    "vit_huge": {"size": (1280, 32, 16), "patch_size": 14, "drop_path_rate": 0.2, "projection_size": 426},
    "vit_giant": {
        "size": (1408, 40, 16),
        "patch_size": 14,
        "drop_path_rate": 0.3,
        "projection_size": 469,
        "intermediate_size": 6144,
    },
}

# Options that say what a fresh backbone looks like: a checkpoint to start from brings them.
SHAPE_OPTIONS = ("hidden_size", "model", "num_attention_heads", "num_hidden_layers", "patch_size")


def model_config(name: str, image_size: int, **overrides: Any) -> "VISRegViTConfig":
    """The configuration of a named backbone; an override that is None keeps the name's own value.

    Raises:
        ValueError: the patch does not divide the image, or the heads the width.
    """
    from modeling_visreg import VISRegViTConfig  # here: it imports torch, which options and their help can do without

    values = dict(ARCHITECTURES[name])
    width, depth, heads = values.pop("size")
    values |= {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads}
    values |= {key: value for key, value in overrides.items() if value is not None}
    values.setdefault("intermediate_size", 4 * values["hidden_size"])
    if overrides.get("hidden_size") is not None:
        values["intermediate_size"] = 4 * values["hidden_size"]
    return VISRegViTConfig(image_size=image_size, **values)


def architecture_name(config: "PretrainedConfig") -> str | None:
    """The name of the architecture whose width, depth, heads and MLP a configuration has, if there is one."""
    sizes = (config.hidden_size, config.num_hidden_layers, config.num_attention_heads)
    for name, values in ARCHITECTURES.items():
        hidden = values.get("intermediate_size", 4 * values["size"][0])
        if values["size"] == sizes and hidden == config.intermediate_size:
            return name
    return None


def config_from(options: "PretrainOptions") -> "VISRegViTConfig":
    """The configuration of a fresh model; one that an id or folder names keeps its shape, or all that it brings."""
    if options.initialize_from or options.model not in ARCHITECTURES:
        return _config_like(options)
    return model_config(
        options.model,
        options.image_size or options.global_size,
        patch_size=options.patch_size,
        hidden_size=options.hidden_size,
        num_hidden_layers=options.num_hidden_layers,
        num_attention_heads=options.num_attention_heads,
        drop_path_rate=options.drop_path_rate,
        projection_size=options.projection_size,
        projector_hidden_size=options.projector_hidden_size,
        projector_act=options.projector_act,
    )


def _config_like(options: "PretrainOptions") -> "VISRegViTConfig":
    """The configuration of the VISReg ViT that a run starts from, or of a fresh one in the shape of another."""
    from modeling_visreg.loading import local_directory, read_config

    config = read_config(local_directory(model_directory(options.initialize_from or options.model)))
    own = config.image_size if options.initialize_from else options.global_size
    config.image_size = options.image_size or own
    for name in ("drop_path_rate", "projection_size", "projector_hidden_size", "projector_act"):
        if getattr(options, name) is not None:
            setattr(config, name, getattr(options, name))
    return config


def check_shape_options(options: "PretrainOptions") -> None:
    """A checkpoint brings its architecture: raises UserError that names the given options that contradict it."""
    given = [name for name in (*SHAPE_OPTIONS, "from_scratch") if name in options.given]
    if options.initialize_from and given:
        raise UserError(f"initialize_from brings its architecture: leave {', '.join(given)} out")
    shaped = [name for name in given if name not in ("model", "image_size", "from_scratch")]
    if options.model not in ARCHITECTURES and shaped:
        raise UserError(f"{options.model} brings its architecture: leave {', '.join(shaped)} out")


def check_crops(patch: int, options: "PretrainOptions") -> None:
    """Raises UserError for a view that patches of `patch` pixels do not divide, with sizes that would do,
    and ValueError for views beyond all measure.
    """
    from ..data.crops import check_pixels  # here: it imports torch, as above

    check_pixels(options)
    sizes = {"global_size": options.global_size} | ({"local_size": options.local_size} if options.num_local else {})
    for name, size in sizes.items():
        if size % patch:
            low = max(patch, size // patch * patch)
            raise UserError(f"{name} {size} is not divisible by the patch of {patch}: use {low} or {low + patch}")
