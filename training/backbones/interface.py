# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What turns images into features: one interface for every vision model.

B images, N patches, d width, P prefix tokens (CLS first, then registers). All tokens are taken after the final norm.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import nn

from modeling_visreg.checkpoint import weights_digest

from .options import POOLINGS


class Tokens(NamedTuple):
    """`prefix`: (B, P, d), P = 0 for models without CLS; `patches`: (B, N, d)."""

    prefix: torch.Tensor
    patches: torch.Tensor


class Backbone(ABC):
    """A vision model on its device. What computes features refuses to run in training mode.

    Attributes:
        name: as the user gave it.
        module: the network, as it was handed over.
        native_size: (height, width) in pixels it was made for.
        mean, std: of its input, one value a channel.
        patch_size: side of a patch in pixels, None for models without patches.
    """

    def __init__(
        self,
        name: str,
        module: nn.Module,
        native_size: Sequence[int],
        mean: Sequence[float],
        std: Sequence[float],
        patch_size: int | None,
    ):
        self.name, self.module = name, module
        height, width = native_size
        self.native_size, self.patch_size = (height, width), patch_size
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        self._weights_hash: str | None = None

    @abstractmethod
    def tokens(self, pixels: torch.Tensor, layers: int = 1) -> list[Tokens]:
        """Tokens of the last `layers` blocks, first to last, each through the final norm."""

    @abstractmethod
    def attention(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, heads, h, w): how much CLS attends to each patch in the last block."""

    @abstractmethod
    def architecture(self) -> str:
        """Everything but the weights that decides what the network computes."""

    def to(self, device: torch.device | str) -> "Backbone":
        self.module.to(device)
        return self

    def freeze(self) -> "Backbone":
        """Evaluation mode, and parameters that ask for no gradient, for good."""
        self.module.eval().requires_grad_(False)
        return self

    @contextmanager
    def evaluating(self) -> Iterator["Backbone"]:
        """Evaluation mode for a while: a model that is being trained goes back to training at the end."""
        training = self.module.training
        self.module.eval()
        try:
            yield self
        finally:
            self.module.train(training)

    @property
    def device(self) -> torch.device:
        return next(self.module.parameters()).device

    def embed(self, pixels: torch.Tensor, layers: int = 1, pooling: str | None = None) -> torch.Tensor:
        """(B, layers * d), or twice as wide for `both`, from normalized pixels (B, C, H, W).

        Args:
            layers: blocks from the end that are concatenated.
            pooling: `cls`, `mean` of the patches or `both`; None takes CLS where there is one, else the mean.

        Raises:
            RuntimeError: the network is in training mode (drop path would be on).
            ValueError: `pooling` needs a CLS token and there is none.
        """
        self.check_evaluating()
        parts = [pool(tokens, pooling) for tokens in self.tokens(pixels, layers)]
        return torch.cat(parts, dim=1)

    def patch_map(self, pixels: torch.Tensor) -> torch.Tensor:
        """Patch tokens of the last block as a map (B, d, h, w)."""
        self.check_evaluating()
        patches = self.tokens(pixels)[-1].patches
        return patches.transpose(1, 2).unflatten(2, self.grid(pixels, patches.shape[1])).contiguous()

    def grid(self, pixels: torch.Tensor, count: int) -> tuple[int, int]:
        """Rows and columns of `count` patches."""
        height, width = pixels.shape[-2:]
        rows = round((count * height / width) ** 0.5)
        if rows == 0 or count % rows:
            raise ValueError(f"{self.name}: {count} patch tokens of {height} x {width} pixels make no grid")
        return rows, count // rows

    def check_evaluating(self) -> None:
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


def cls_attention(backbone: Backbone, weights: torch.Tensor, prefix: int, pixels: torch.Tensor) -> torch.Tensor:
    """(B, heads, h, w) from attention weights (B, heads, P + N, P + N)."""
    if prefix == 0:
        raise ValueError(f"{backbone.name} has no CLS token whose attention could be shown")
    row = weights[:, :, 0, prefix:]
    return row.unflatten(2, backbone.grid(pixels, row.shape[2]))
