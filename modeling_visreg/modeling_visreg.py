# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The VISReg ViT: a plain pre-norm vision transformer, its projector for pretraining, a classifier and a backbone.

Shapes: V views, B images, D dimension of the projections, d width of the backbone, C channels, H x W pixels,
N patches, L blocks. Views always come before images: (V, B, ...).

This file travels with each checkpoint as remote code: next to transformers it needs only the configuration file.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

# First, so that where transformers is too old for the imports below, that file says so.
from .configuration_visreg import VISRegViTConfig


# isort: split
import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutput,
    BaseModelOutputWithPooling,
    ImageClassifierOutput,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs
from transformers.utils.generic import can_return_tuple, maybe_autocast, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs


@dataclass
class VISRegViTForPreTrainingOutput(ModelOutput):
    """Output of `VISRegViTForPreTraining`, views in the order given.

    Args:
        projections (`torch.Tensor` of shape `(V, B, D)`): output of the projector.
        features (`torch.Tensor` of shape `(V, B, d)`): CLS token after the final LayerNorm.
    """

    projections: torch.Tensor | None = None
    features: torch.Tensor | None = None


def resampling_matrix(source: int, target: int, device: torch.device) -> torch.Tensor:
    """Weights (target, source) of antialiased bicubic resampling along one axis, float32.

    Resampling is linear, so its matrix is what it does to the identity.
    """
    identity = torch.eye(source, device=device, dtype=torch.float32)
    resampled = nn.functional.interpolate(
        identity[None, None], size=(target, source), mode="bicubic", align_corners=False, antialias=True
    )
    return resampled[0, 0]


class VISRegViTPatchEmbeddings(nn.Module):
    """Pixels (B, C, H, W) to patch tokens (B, N, d); refuses sizes that the patch does not divide."""

    def __init__(self, config: VISRegViTConfig):
        super().__init__()
        self.patch_size = config.patch_size
        self.num_channels = config.num_channels
        self.projection = nn.Conv2d(
            config.num_channels, config.hidden_size, kernel_size=config.patch_size, stride=config.patch_size
        )

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        self.check_shape(pixel_values)
        pixel_values = pixel_values.to(self.projection.weight.dtype)
        return self.projection(pixel_values).flatten(2).transpose(1, 2)

    def check_shape(self, pixel_values: torch.Tensor) -> None:
        """Raises ValueError unless these are images that divide into patches."""
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.num_channels:
            raise ValueError(
                f"pixel_values must be (batch, {self.num_channels}, height, width); got {tuple(pixel_values.shape)}."
            )
        height, width = pixel_values.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"Images of {height} x {width} pixels (height x width) do not divide into patches of "
                f"{self.patch_size}; the nearest that fit: height {self._nearest(height)}, "
                f"width {self._nearest(width)}."
            )

    def _nearest(self, side: int) -> str:
        below = side - side % self.patch_size
        fitting = {below, side + -side % self.patch_size} - {0}
        return " or ".join(str(size) for size in sorted(fitting))


class VISRegViTEmbeddings(nn.Module):
    """CLS token and patch tokens with the learned position embedding, resampled to the grid of the images."""

    def __init__(self, config: VISRegViTConfig):
        super().__init__()
        rows, columns = self.grid_size = config.grid_size
        self.patch_size = config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.patch_embeddings = VISRegViTPatchEmbeddings(config)
        self.position_embeddings = nn.Parameter(torch.zeros(1, 1 + rows * columns, config.hidden_size))
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def interpolate_pos_encoding(self, rows: int, columns: int) -> torch.Tensor:
        """Position embedding (1, 1 + rows * columns, d) for a grid of patches.

        Equal to `F.interpolate(mode="bicubic", antialias=True)` in float32, but written as two matrix products: its
        backward does not compile under dynamic shapes in torch 2.14, and a second crop size makes shapes dynamic.
        """
        if (rows, columns) == self.grid_size:
            return self.position_embeddings
        positions = self.position_embeddings
        grid = positions[0, 1:].unflatten(0, self.grid_size)
        with maybe_autocast(positions.device.type, enabled=False):
            vertical = resampling_matrix(self.grid_size[0], rows, positions.device)
            horizontal = resampling_matrix(self.grid_size[1], columns, positions.device)
            grid = torch.einsum("ri,cj,ijd->rcd", vertical, horizontal, grid.float())
        return torch.cat((positions[:, :1], grid.flatten(0, 1)[None].to(positions.dtype)), dim=1)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        patches = self.patch_embeddings(pixel_values)
        rows, columns = (side // self.patch_size for side in pixel_values.shape[-2:])
        cls_tokens = self.cls_token.expand(patches.shape[0], -1, -1)
        embeddings = torch.cat((cls_tokens, patches), dim=1) + self.interpolate_pos_encoding(rows, columns)
        return self.dropout(embeddings)


def mask_of(attention_mask: torch.Tensor | None, embeddings: torch.Tensor, config: VISRegViTConfig) -> Any:
    """The mask (B, 1 + N) in the form that the attention backend takes; None stays None.

    transformers would be asked in vain: under torch.compile it makes a mask that hides nothing, with which
    scaled_dot_product_attention leaves its fast paths.
    """
    if attention_mask is None:
        return None
    return create_bidirectional_mask(config=config, inputs_embeds=embeddings, attention_mask=attention_mask)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Unpack[TransformersKwargs],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out: (B, heads, 1 + N, d / heads) to (B, 1 + N, heads, d / heads) and its weights."""
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


# transformers allows `set_attn_implementation` where it finds a line of the form `class ...Attention...(nn.Module):`.
class VISRegViTAttention(nn.Module):
    """Multi-head self-attention through the attention backend of the config: eager, sdpa, flash or flex."""

    def __init__(self, config: VISRegViTConfig):
        super().__init__()
        self.config = config
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.attention_dropout = config.attention_probs_dropout_prob
        self.is_causal = False
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch_and_tokens = hidden_states.shape[:-1]
        query, key, value = (
            project(hidden_states).view(*batch_and_tokens, -1, self.head_dim).transpose(1, 2)
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        attended, weights = attend(
            self,
            query,
            key,
            value,
            attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return self.o_proj(attended.reshape(*batch_and_tokens, -1)), weights


class VISRegViTMLP(nn.Module):
    """Linear, activation, Linear."""

    def __init__(self, config: VISRegViTConfig):
        super().__init__()
        width = cast(int, config.intermediate_size)  # the configuration sets it
        self.fc1 = nn.Linear(config.hidden_size, width)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(width, config.hidden_size)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


def drop_path(branch: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
    """Stochastic depth: the branch (B, 1 + N, d), each row times its factor (B,): 0, or 1 / (1 - rate).

    The factors come from the encoder; None (evaluation, or no rate above 0) keeps every row as it is.
    """
    return branch if factors is None else branch * factors.to(branch.dtype)[:, None, None]


class VISRegViTLayer(GradientCheckpointingLayer):
    """Pre-norm block: attention and MLP, each a residual branch with stochastic depth."""

    def __init__(self, config: VISRegViTConfig):
        super().__init__()
        self.layernorm_before = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = VISRegViTAttention(config)
        self.layernorm_after = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VISRegViTMLP(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        drop_path_factors: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> torch.Tensor:
        """Tokens (B, 1 + N, d) to tokens; `drop_path_factors` (B, 2): one a row for each branch, or None.

        Nothing but weights differs between blocks, so that one compiled graph can serve all of them.
        """
        first, second = (None, None) if drop_path_factors is None else drop_path_factors.unbind(1)
        attended, _ = self.attention(self.layernorm_before(hidden_states), attention_mask, **kwargs)
        hidden_states = hidden_states + drop_path(self.dropout(attended), first)
        transformed = self.mlp(self.layernorm_after(hidden_states))
        return hidden_states + drop_path(self.dropout(transformed), second)


class VISRegViTProjectorLinear(nn.Linear):
    """A linear layer that `_init_weights` leaves with PyTorch's initialization, unlike those of the blocks."""


class VISRegViTProjector(nn.Sequential):
    """Linear BN GELU, Linear BN GELU, Linear: (rows, d) to (rows, D). BN takes its statistics over the rows.

    `projector_act` of the configuration may put another activation in the place of GELU.
    """

    def __init__(self, config: VISRegViTConfig):
        hidden = config.projector_hidden_size
        super().__init__(
            VISRegViTProjectorLinear(config.hidden_size, hidden),
            nn.BatchNorm1d(hidden),
            ACT2FN[config.projector_act],
            VISRegViTProjectorLinear(hidden, hidden),
            nn.BatchNorm1d(hidden),
            ACT2FN[config.projector_act],
            VISRegViTProjectorLinear(hidden, config.projection_size),
        )


class VISRegViTPreTrainedModel(PreTrainedModel):
    """Initialization, and what transformers may do with these models."""

    config: VISRegViTConfig
    base_model_prefix = "vit"
    main_input_name = "pixel_values"
    input_modalities = ("image",)  # type: ignore[assignment]  # as in transformers' own models
    supports_gradient_checkpointing = True
    _no_split_modules: ClassVar = [  # type: ignore[misc]
        "VISRegViTEmbeddings",
        "VISRegViTLayer",
    ]
    _input_embed_layer = "patch_embeddings"
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs: ClassVar = {  # type: ignore[misc]
        "hidden_states": VISRegViTLayer,
        "attentions": VISRegViTAttention,
    }

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As timm initializes its ViT; patch convolution and projector as PyTorch initializes them."""
        super()._init_weights(module)
        if isinstance(module, VISRegViTEmbeddings):
            init.normal_(module.cls_token, std=1e-6)
            init.trunc_normal_(module.position_embeddings, std=self.config.initializer_range)
        elif isinstance(module, VISRegViTEncoder):
            rates = [rate for rate in module.drop_path_rates for _branch in range(2)]
            init.copy_(module.drop_path_table, torch.tensor([rates, [1.0 - rate for rate in rates]]))
        elif isinstance(module, nn.Conv2d | VISRegViTProjectorLinear):
            bound = 1.0 / math.sqrt(module.weight[0].numel())
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.Linear):
            init.trunc_normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)


class VISRegViTEncoder(VISRegViTPreTrainedModel):
    """The blocks. Stochastic depth rises linearly from 0 in the first block to its rate in the last."""

    drop_path_table: torch.Tensor

    def __init__(self, config: VISRegViTConfig):
        super().__init__(config)
        depth = config.num_hidden_layers
        self.drop_path_rates = [config.drop_path_rate * index / max(depth - 1, 1) for index in range(depth)]
        # (2, 2 L): the rate of each branch, and what is left of 1. `_init_weights` fills it: while from_pretrained
        # builds the model, tensors have no content.
        self.register_buffer("drop_path_table", torch.empty(2, 2 * depth), persistent=False)
        self.layer = nn.ModuleList([VISRegViTLayer(config) for _ in range(depth)])
        self.post_init()

    def drop_path_factors(self, rows: int) -> torch.Tensor | None:
        """(rows, 2 L): 0, or 1 / (1 - rate), for each branch of each block; None where nothing is ever dropped.

        One tensor, a row for each image: consecutive chunks of rows that start from the same CPU generator state
        draw exactly what the undivided batch draws. Exact micro-batches rest on it. Its columns are arguments of the
        blocks, so that activation checkpointing computes them again with the same draws.
        """
        if not (self.training and any(self.drop_path_rates)):
            return None
        rates, left = self.drop_path_table
        return (torch.rand(rows, 2 * len(self.layer), device=rates.device) >= rates) / left

    @merge_with_config_defaults
    @capture_outputs(tie_last_hidden_states=False)
    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutput:
        factors = self.drop_path_factors(hidden_states.shape[0])
        columns = [None] * len(self.layer) if factors is None else factors.split(2, dim=1)
        for layer, drop_path_factors in zip(self.layer, columns, strict=True):
            hidden_states = layer(hidden_states, attention_mask, drop_path_factors, **kwargs)
        return BaseModelOutput(last_hidden_state=hidden_states)


class VISRegViTModel(VISRegViTPreTrainedModel):
    """The ViT without a head. Its embedding is the CLS token after the final LayerNorm.

    Example:

    ```python
    >>> import torch
    >>> from modeling_visreg import VISRegViTConfig, VISRegViTModel
    >>> model = VISRegViTModel(VISRegViTConfig(num_hidden_layers=2)).eval()
    >>> model(torch.zeros(1, 3, 96, 224)).pooler_output.shape
    torch.Size([1, 768])
    ```
    """

    def __init__(self, config: VISRegViTConfig):
        super().__init__(config)
        self.embeddings = VISRegViTEmbeddings(config)
        self.encoder = VISRegViTEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BaseModelOutputWithPooling:
        """Features of a batch of images.

        Args:
            pixel_values: (B, C, H, W), normalized; H and W any multiples of the patch size.
            attention_mask: (B, 1 + N), 0 for tokens that are not attended to; all are by default.
            **kwargs: `output_hidden_states`, `output_attentions`, `return_dict`; the rest reaches the attention.

        Returns:
            `last_hidden_state` (B, 1 + N, d) after the final LayerNorm, CLS first; `pooler_output` (B, d), its CLS
            token; on request `hidden_states`, L + 1 of (B, 1 + N, d) before the final LayerNorm, and `attentions`,
            L of (B, heads, 1 + N, 1 + N).

        Raises:
            ValueError: the patch does not divide the images; the message names the sizes that fit.
        """
        embeddings = self.embeddings(pixel_values)
        mask = mask_of(attention_mask, embeddings, self.config)
        encoded: BaseModelOutput = self.encoder(embeddings, mask, return_dict=True, **kwargs)
        sequence = self.layernorm(encoded.last_hidden_state)
        return BaseModelOutputWithPooling(
            last_hidden_state=sequence,
            pooler_output=sequence[:, 0],
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class VISRegViTForPreTraining(VISRegViTPreTrainedModel):
    """The ViT with the projector whose output the VISReg objective shapes.

    `forward` is `encode` for each resolution, then `project`. A training step that gathers features of other
    processes or of micro-batches calls the two apart, and projects the whole batch.
    """

    main_input_name = "views"

    def __init__(self, config: VISRegViTConfig):
        super().__init__(config)
        self.vit = VISRegViTModel(config)
        self.projector = VISRegViTProjector(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self, views: Sequence[torch.Tensor], **kwargs: Unpack[TransformersKwargs]
    ) -> VISRegViTForPreTrainingOutput:
        """Projections and features of views of one or more resolutions.

        Args:
            views: one tensor a resolution, each (V_r, B, C, H_r, W_r), global views first.

        Returns:
            `projections` (V, B, D) and `features` (V, B, d), V the sum of V_r, views in the order given.

        Raises:
            ValueError: `views` is not a list of 5-dimensional tensors of the same B.
        """
        if isinstance(views, torch.Tensor) or not len(views) or any(group.ndim != 5 for group in views):
            raise ValueError(
                "views must be a list of at least one tensor (views, images, channels, height, width), one a size."
            )
        if len({group.shape[1] for group in views}) != 1:
            raise ValueError(
                f"All resolutions need the same images; got batches of {[group.shape[1] for group in views]}."
            )
        features = torch.cat([self.encode(group, **kwargs) for group in views])
        projections = self.project(features, [group.shape[0] for group in views])
        return VISRegViTForPreTrainingOutput(projections=projections, features=features)

    def encode(self, views: torch.Tensor, **kwargs: Unpack[TransformersKwargs]) -> torch.Tensor:
        """Features (V_r, B, d) of the views (V_r, B, C, H, W) of one resolution."""
        features = self.vit(views.flatten(0, 1), **{**kwargs, "return_dict": True}).pooler_output
        return features.unflatten(0, views.shape[:2])

    def project(self, features: torch.Tensor, views_per_resolution: Sequence[int]) -> torch.Tensor:
        """Projections (V, B, D) of features (V, B, d), of which the first V_0 views share a resolution, and so on.

        Each resolution passes through the projector by itself, as the reference does: BN statistics differ
        between crop sizes.
        """
        if sum(views_per_resolution) != features.shape[0]:
            raise ValueError(
                f"views_per_resolution {list(views_per_resolution)} does not add up to {features.shape[0]} views."
            )
        groups = features.split(list(views_per_resolution))
        return torch.cat([self.projector(group.flatten(0, 1)).unflatten(0, group.shape[:2]) for group in groups])


class VISRegViTForImageClassification(VISRegViTPreTrainedModel):
    """The ViT with a linear classifier on the CLS token after the final LayerNorm."""

    def __init__(self, config: VISRegViTConfig):
        super().__init__(config)
        self.num_labels: int = config.num_labels or 0
        self.vit = VISRegViTModel(config)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels) if self.num_labels > 0 else nn.Identity()
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor,
        labels: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> ImageClassifierOutput:
        """Logits (B, num_labels) of images (B, C, H, W), and the loss where `labels` are given.

        `labels` are (B,) class indices, (B,) or (B, num_labels) floats for regression, or (B, num_labels) floats for
        several labels an image: `config.problem_type` says which, or their dtype and `num_labels` do.
        """
        outputs: BaseModelOutputWithPooling = self.vit(
            pixel_values, attention_mask=attention_mask, return_dict=True, **kwargs
        )
        logits = self.classifier(outputs.pooler_output)
        loss = None
        if labels is not None:
            loss = self.loss_function(labels, logits, self.config, **kwargs)
        return ImageClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class VISRegViTBackbone(BackboneMixin, VISRegViTPreTrainedModel):
    """The ViT as a backbone for dense heads: feature maps (B, d, H / patch, W / patch) of the chosen stages.

    Stage 0 (`"stem"`) is the embedding, stage i the output of block i, each through the final LayerNorm.
    """

    def __init__(self, config: VISRegViTConfig):
        super().__init__(config)
        self.num_features = [config.hidden_size] * (config.num_hidden_layers + 1)
        self.embeddings = VISRegViTEmbeddings(config)
        self.encoder = VISRegViTEncoder(config)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> BackboneOutput:
        """Feature maps of images (B, C, H, W), one for each of `out_features`."""
        embeddings = self.embeddings(pixel_values)
        mask = mask_of(attention_mask, embeddings, self.config)
        encoded: BaseModelOutput = self.encoder(embeddings, mask, return_dict=True, **kwargs)
        grid = [side // self.config.patch_size for side in pixel_values.shape[-2:]]
        feature_maps = []
        for stage, hidden_state in zip(self.stage_names, encoded.hidden_states or (), strict=True):
            if stage in self.out_features:
                patches = self.layernorm(hidden_state)[:, 1:]
                feature_maps.append(patches.transpose(1, 2).unflatten(2, grid).contiguous())
        return BackboneOutput(
            feature_maps=tuple(feature_maps), hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )


# With these calls save_pretrained copies the two files next to the weights.
VISRegViTModel.register_for_auto_class("AutoModel")
VISRegViTForPreTraining.register_for_auto_class("AutoModelForPreTraining")
VISRegViTForImageClassification.register_for_auto_class("AutoModelForImageClassification")
VISRegViTBackbone.register_for_auto_class("AutoBackbone")

__all__ = [
    "VISRegViTBackbone",
    "VISRegViTForImageClassification",
    "VISRegViTForPreTraining",
    "VISRegViTForPreTrainingOutput",
    "VISRegViTModel",
    "VISRegViTPreTrainedModel",
]
