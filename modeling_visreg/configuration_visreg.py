# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Configuration of the VISReg ViT: architecture only, no training keys.

This file travels with each checkpoint as remote code, so it imports nothing of this package and stays flat.
"""

import math
from typing import Any

import transformers


# Of a checkpoint's files this is the first to be executed, and older versions lack what the imports below name.
MINIMUM_TRANSFORMERS = "5.12"
if [int(part) for part in transformers.__version__.split(".")[:2]] < [5, 12]:
    raise ImportError(
        f"VISReg ViT checkpoints need transformers {MINIMUM_TRANSFORMERS} or newer, this is "
        f"{transformers.__version__}: pip install 'transformers>={MINIMUM_TRANSFORMERS}'"
    )

from huggingface_hub.dataclasses import strict  # noqa: E402
from transformers.backbone_utils import BackboneConfigMixin  # noqa: E402
from transformers.configuration_utils import PreTrainedConfig  # noqa: E402


# A configuration may come from anybody, and a model is built from it: sizes far beyond any model's are refused.
LARGEST = {
    "hidden_size": 65_536, "num_hidden_layers": 1_024, "num_attention_heads": 4_096, "intermediate_size": 1_048_576,
    "patch_size": 4_096, "num_channels": 4_096, "projector_hidden_size": 1_048_576, "projection_size": 1_048_576,
    "image_size": 65_536,
}  # fmt: skip

# Saving one class makes transformers write only that class's entry, and the other Auto classes then fail on the
# checkpoint without this package: each config therefore carries the whole map.
AUTO_MAP = {
    "AutoConfig": "configuration_visreg.VISRegViTConfig",
    "AutoModel": "modeling_visreg.VISRegViTModel",
    "AutoBackbone": "modeling_visreg.VISRegViTBackbone",
    "AutoModelForPreTraining": "modeling_visreg.VISRegViTForPreTraining",
    "AutoModelForImageClassification": "modeling_visreg.VISRegViTForImageClassification",
}

# transformers' own pipelines turn an image into 8-bit RGB before the processor sees it. A checkpoint's own are used
# where its code is trusted; where this package is installed, it registers them (`__init__.py`).
PIPELINES = {
    "image-feature-extraction": ("VISRegViTFeatureExtractionPipeline", "AutoModel"),
    "image-classification": ("VISRegViTImageClassificationPipeline", "AutoModelForImageClassification"),
}


def custom_pipelines(architectures: list[str] | None) -> dict[str, Any]:
    """The entry of config.json: one task, which transformers then infers, but for a classifier, which has both."""
    classifier = "VISRegViTForImageClassification" in (architectures or ())
    tasks = list(PIPELINES)[: None if classifier else 1]
    return {
        task: {"impl": f"image_processing_visreg.{PIPELINES[task][0]}", "pt": [PIPELINES[task][1]]} for task in tasks
    }


@strict
class VISRegViTConfig(BackboneConfigMixin, PreTrainedConfig):
    r"""Architecture of a VISReg ViT. The defaults are the ViT-B/16 of the paper (arXiv 2606.02572).

    Args:
        hidden_size (`int`, defaults to 768): width d of the backbone.
        num_hidden_layers (`int`, defaults to 12): number of transformer blocks.
        num_attention_heads (`int`, defaults to 12): attention heads a block; must divide `hidden_size`.
        intermediate_size (`int`, *optional*, defaults to `4 * hidden_size`): width of the MLP's hidden layer.
        image_size (`int` or `(height, width)`, defaults to 224): native size in pixels, which fixes the grid of the
            learned position embedding. Inputs of any other size that the patch divides are accepted.
        patch_size (`int`, defaults to 16): side of a patch in pixels; must divide `image_size`.
        num_channels (`int`, defaults to 3): channels of the images.
        qkv_bias (`bool`, defaults to `True`): whether query, key and value projections have a bias.
        layer_norm_eps (`float`, defaults to 1e-6): epsilon of every LayerNorm.
        hidden_act (`str`, defaults to `"gelu"`): activation of the MLP.
        drop_path_rate (`float`, defaults to 0.1): stochastic depth rate of the last block; block i of L has
            `drop_path_rate * i / (L - 1)`.
        hidden_dropout_prob (`float`, defaults to 0.0): dropout on embeddings and on the output of each branch.
        attention_probs_dropout_prob (`float`, defaults to 0.0): dropout on the attention probabilities.
        initializer_range (`float`, defaults to 0.02): standard deviation of the truncated normal initialization.
        projector_hidden_size (`int`, defaults to 2048): width of the projector's two hidden layers.
        projector_act (`str`, defaults to `"gelu"`): activation of the projector; `"relu"` in the paper's toy recipe.
        projection_size (`int`, defaults to 256): dimension D of the projections.
        out_features (`list[str]`, *optional*): stages that `VISRegViTBackbone` returns, of `"stem"`, `"stage1"`, ...
        out_indices (`list[int]`, *optional*): the same by index; the last stage when neither is given.

    Raises:
        ValueError: a size is not positive or beyond `LARGEST`, heads do not divide the width, the patch does not
            divide the native size, or a probability, an epsilon or a standard deviation is none.

    Example:

    ```python
    >>> from modeling_visreg import VISRegViTConfig, VISRegViTModel
    >>> model = VISRegViTModel(VISRegViTConfig(hidden_size=192, num_attention_heads=3))
    ```
    """

    model_type = "visreg_vit"

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int | None = None
    image_size: int | list[int] | tuple[int, int] = 224
    patch_size: int = 16
    num_channels: int = 3
    qkv_bias: bool = True
    layer_norm_eps: float = 1e-6
    hidden_act: str = "gelu"
    drop_path_rate: float | int = 0.1
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    initializer_range: float = 0.02
    projector_hidden_size: int = 2048
    projector_act: str = "gelu"
    projection_size: int = 256
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.intermediate_size is None:
            self.intermediate_size = 4 * self.hidden_size
        self._check_architecture()
        self.stage_names = ["stem"] + [f"stage{index}" for index in range(1, self.num_hidden_layers + 1)]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        # These are functions of the rest: what a saved config says about them must not win.
        kwargs.pop("stage_names", None)
        kwargs.pop("auto_map", None)
        kwargs.pop("minimum_transformers_version", None)
        kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)
        self.auto_map = dict(AUTO_MAP)
        self.minimum_transformers_version = MINIMUM_TRANSFORMERS
        if __name__.startswith("transformers_modules."):  # remote code, which is trusted if this line runs
            self.custom_pipelines = custom_pipelines(self.architectures)

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds."""
        # Never the attribute: transformers puts classes into it.
        return super().to_dict() | {"custom_pipelines": custom_pipelines(self.architectures)}

    @property
    def native_size(self) -> tuple[int, int]:
        """Height and width, in pixels, of the images that the position embedding is learned for."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        height, width = self.image_size
        return height, width

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of patches of an image of the native size."""
        height, width = self.native_size
        return height // self.patch_size, width // self.patch_size

    def _check_architecture(self) -> None:
        if not isinstance(self.image_size, int) and len(self.image_size) != 2:
            raise ValueError(f"image_size is an int or (height, width) in pixels; got {self.image_size}.")
        height, width = self.native_size
        sides = [("image_size", height), ("image_size", width)]
        for name, value in [*((name, getattr(self, name)) for name in LARGEST if name != "image_size"), *sides]:
            if not 1 <= value <= LARGEST[name]:
                raise ValueError(f"{name} must be from 1 to {LARGEST[name]}; got {value}.")
        for name in ("drop_path_rate", "hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1); got {getattr(self, name)}.")
        for name, largest in (("layer_norm_eps", 1), ("initializer_range", math.inf)):
            if not 0 <= getattr(self, name) < largest:
                raise ValueError(f"{name} must be in [0, {largest}); got {getattr(self, name)}.")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"num_attention_heads must divide hidden_size; got {self.num_attention_heads} heads for a width of "
                f"{self.hidden_size}."
            )
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"patch_size must divide image_size; got patches of {self.patch_size} for {height} x {width} pixels."
            )


VISRegViTConfig.register_for_auto_class()

__all__ = ["VISRegViTConfig"]
