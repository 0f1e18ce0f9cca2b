# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The views of all resolutions through each block at once: half the launches, larger products, each weight cast once.

A block treats tokens one by one but for attention, which is taken a resolution at a time. So the tokens of all crops
lie in one matrix, resolution after resolution, and the gradient of a weight is one product instead of a sum of two.

T tokens of all crops (of each resolution: crops times tokens of a crop), d width of the backbone, L blocks; crops
(rows, C, H, W) of one resolution.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import linear, scaled_dot_product_attention

from modeling_visreg import VISRegViTForPreTraining, VISRegViTModel

from ..backbones import has_lora


class Packing(NamedTuple):
    """What a block has to know of the tokens.

    Attributes:
        resolutions: (crops, tokens of a crop) of each.
        dtype: of the products: autocast's, or that of the weights.
    """

    resolutions: tuple[tuple[int, int], ...]
    dtype: torch.dtype

    @property
    def lengths(self) -> list[int]:
        """Tokens of each resolution."""
        return [crops * tokens for crops, tokens in self.resolutions]


def packs(model: nn.Module) -> bool:
    """Whether the blocks of a model can be computed so: those of our ViT with SDPA, no dropout within them, and no
    adapters, which are more than a weight and a bias.
    """
    if not isinstance(model, VISRegViTForPreTraining):
        return False
    config = model.config
    plain = config.hidden_dropout_prob == 0 and config.attention_probs_dropout_prob == 0
    return plain and not has_lora(model) and config._attn_implementation == "sdpa"


def encode_packed(vit: VISRegViTModel, groups: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features of the crops of all resolutions, in the order given.

    Args:
        vit: whose blocks take a `Packing` (compiling.py).
        groups: crops (rows, C, H, W), one tensor a resolution.

    Returns:
        Features (all rows, d): CLS after the final norm; and the CLS tokens of the last two blocks before it, of the
        first resolution, (rows, 2 d), detached; the last one twice if there is one block only.
    """
    embedded = [vit.embeddings(group) for group in groups]
    tokens = torch.cat([one.flatten(0, 1) for one in embedded])
    packing = Packing(tuple((one.shape[0], one.shape[1]) for one in embedded), product_dtype(tokens))
    columns = token_factors(vit, packing)
    states = []
    for block, factors in zip(vit.encoder.layer, columns, strict=True):
        tokens = block(tokens, factors, packing=packing)
        states = [*states[-1:], tokens]
    features = vit.layernorm(torch.cat(cls_tokens(tokens, packing)))
    watched = [cls_tokens(state.detach(), packing)[0] for state in (states[0], states[-1])]
    return features, torch.cat(watched, dim=1)


def product_dtype(tokens: torch.Tensor) -> torch.dtype:
    """Autocast's type on the device of the tokens, or their own."""
    kind = tokens.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tokens.dtype


def token_factors(vit: VISRegViTModel, packing: Packing) -> list[torch.Tensor | None]:
    """Drop path's factors (2, T) for each block, drawn a resolution at a time as without packing; None for none."""
    drawn = [vit.encoder.drop_path_factors(crops) for crops, _tokens in packing.resolutions]
    if any(factors is None for factors in drawn):
        return [None] * len(vit.encoder.layer)
    spread = [
        factors.T[:, :, None].expand(-1, -1, tokens).flatten(1)
        for factors, (_crops, tokens) in zip(drawn, packing.resolutions, strict=True)
    ]
    return list(torch.cat(spread, dim=1).split(2))


def cls_tokens(tokens: torch.Tensor, packing: Packing) -> list[torch.Tensor]:
    """CLS (crops, d) of each resolution."""
    parts = tokens.split(packing.lengths)
    return [part.unflatten(0, shape)[:, 0] for part, shape in zip(parts, packing.resolutions, strict=True)]


def patch_products(embeddings: nn.Module, pixel_values: torch.Tensor) -> torch.Tensor:
    """The forward of a `VISRegViTPatchEmbeddings`: crops (rows, C, H, W) to (rows, N, d), as one matrix product.

    A convolution whose stride is its size is a product of flattened patches. cuDNN spent 3.4 ms of a ViT-B's step on
    its forward and on changing the layout (H100, 64 images).
    """
    embeddings.check_shape(pixel_values)
    size, projection = embeddings.patch_size, embeddings.projection
    pixels = pixel_values.to(product_dtype(projection.weight))
    cut = pixels.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # (rows, C, H / size, size, W / size, size)
    patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    return linear(patches, projection.weight.flatten(1), projection.bias)


def packed_block(
    block: nn.Module, tokens: torch.Tensor, factors: torch.Tensor | None, packing: Packing
) -> torch.Tensor:
    """The forward of a `VISRegViTLayer` for the tokens (T, d) of all resolutions; `factors` (2, T), or None."""
    attention, mlp = block.attention, block.mlp
    inputs = [attention.q_proj, attention.k_proj, attention.v_proj]
    (qkv, output, first, second) = lowered([inputs, [attention.o_proj], [mlp.fc1], [mlp.fc2]], packing.dtype)
    before, after = (None, None) if factors is None else factors.to(packing.dtype)[:, :, None].unbind(0)
    attended = attend(linear(block.layernorm_before(tokens).to(packing.dtype), *qkv), attention, packing)
    tokens = tokens + scaled(linear(attended, *output), before)
    hidden = mlp.activation(linear(block.layernorm_after(tokens).to(packing.dtype), *first))
    return tokens + scaled(linear(hidden, *second), after)


def lowered(groups: list[list[nn.Linear]], dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """(weight, bias) of linear layers in the type of the products; those of a group one below the other.

    One cast for all weights and one for all biases: each would be a launch of its own.
    """
    layers = [layer for group in groups for layer in group]
    weights = torch.cat([layer.weight.flatten() for layer in layers]).to(dtype)
    biases = torch.cat([layer.bias for layer in layers if layer.bias is not None]).to(dtype)
    result, weight_start, bias_start = [], 0, 0
    for group in groups:
        rows, columns = sum(layer.out_features for layer in group), group[0].in_features
        weight = weights[weight_start : weight_start + rows * columns].view(rows, columns)
        bias = None if group[0].bias is None else biases[bias_start : bias_start + rows]
        weight_start, bias_start = weight_start + weight.numel(), bias_start + (0 if bias is None else rows)
        result.append((weight, bias))
    return result


def attend(qkv: torch.Tensor, attention: nn.Module, packing: Packing) -> torch.Tensor:
    """Attention among the tokens of each crop: (T, 3 d) to (T, d)."""
    parts = []
    for part, (crops, tokens) in zip(qkv.split(packing.lengths), packing.resolutions, strict=True):
        heads = part.view(crops, tokens, 3, -1, attention.head_dim)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        attended = scaled_dot_product_attention(query, key, value, scale=attention.scaling)
        parts.append(attended.transpose(1, 2).reshape(crops * tokens, -1))
    return torch.cat(parts)


def scaled(branch: torch.Tensor, factors: torch.Tensor | None) -> torch.Tensor:
    """The branch (T, d), each token times its factor (T, 1)."""
    return branch if factors is None else branch * factors
