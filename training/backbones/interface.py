# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What turns images into features: one interface for every vision model, to measure it and to train it.

B images, N patches, d width, P prefix tokens (CLS first, then registers), L blocks. All tokens are taken after the
final norm.
"""

import hashlib
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from modeling_visreg.checkpoint import weights_digest

from ..errors import failure_of_machine, one_line
from ..run_folder import Json
from .options import POOLINGS


LARGEST_DEPTH = 1024  # blocks; and pixels of a side of what an image processor asks for are bounded too
LARGEST_SIDE = 4096


class Tokens(NamedTuple):
    """`prefix`: (B, P, d), P = 0 for models without CLS; `patches`: (B, N, d)."""

    prefix: torch.Tensor
    patches: torch.Tensor


class Backbone(ABC):
    """A vision model on its device. `embed` and `patch_map`, which measure, refuse to run in training mode; `encode`,
    which trains, does not.

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
        self._width: int | None = None
        self._layers: dict[str, int] | None = None

    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The blocks in the order in which they compute; empty where this package does not know them."""

    @abstractmethod
    def tokens(self, pixels: torch.Tensor, layers: int = 1) -> list[Tokens]:
        """Tokens of the last `layers` blocks, first to last, each through the final norm."""

    @abstractmethod
    def attention(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, heads, h, w): how much CLS attends to each patch in the last block."""

    @abstractmethod
    def architecture(self) -> str:
        """Everything but the weights that decides what the network computes."""

    @abstractmethod
    def save(self, directory: str | Path) -> None:
        """A checkpoint of the native class with its image processor, in the place of whatever is there.

        Raises:
            OSError: the disk refuses.
        """

    @abstractmethod
    def config_dict(self) -> Json:
        """What config.json of such a checkpoint says."""

    @abstractmethod
    def save_processor(self, directory: Path) -> None:
        """The image processor alone, into a directory that is there."""

    @abstractmethod
    def rebuilt(self) -> "Backbone":
        """The same network and preprocessing, on the CPU, with random weights."""

    @abstractmethod
    def enable_activation_checkpointing(self) -> None:
        """Compute the activations of each block again in backward.

        Raises:
            ValueError: the network has no such thing.
        """

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
        if layers == 1 and pooling is None:
            return self.feature(pixels)
        parts = [pool(tokens, pooling) for tokens in self.tokens(pixels, layers)]
        return torch.cat(parts, dim=1)

    def feature(self, pixels: torch.Tensor) -> torch.Tensor:
        """The feature (B, d) of normalized pixels (B, C, H, W), in whatever mode the network is.

        CLS after the final norm; where there is none, the mean of the patches, or what the model itself makes of them.
        """
        return pool(self.tokens(pixels)[-1], None)

    def encode(self, pixels: torch.Tensor, probed: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """For a step of pretraining: the feature (B, d), and what its online probe reads (B, `probe_width`), detached.

        The latter has no columns unless it is `probed`.
        """
        feature = self.feature(pixels)
        return feature, feature.detach() if probed else feature.detach()[:, :0]

    @property
    def width(self) -> int:
        """d of `feature`.

        Raises:
            ValueError: the network fails on an image of its native size.
        """
        if self._width is None:
            try:
                with self.evaluating(), torch.no_grad():
                    zeros = torch.zeros(1, len(self.mean), *self.native_size, device=self.device)
                    self._width = self.feature(zeros).shape[1]
            except Exception as error:  # a stranger's configuration makes a network fail in any way there is
                if isinstance(error, ValueError) or failure_of_machine(error):
                    raise
                raise ValueError(f"{self.name} makes no feature of an image: {one_line(error, 200)}") from error
        return self._width

    @property
    def probe_width(self) -> int:
        """Columns of what `encode` gives the online probe."""
        return self.width

    def layer_of(self, name: str) -> int:
        """The layer of a parameter of `module`: 0 the embedding, 1 to L the blocks, L + 1 what follows them.

        Raises:
            ValueError: this package does not know the blocks of the model.
        """
        if self._layers is None or name not in self._layers:  # adapters may have come since
            self._layers = layer_numbers(self.module, self.blocks())
        if not self._layers:
            raise ValueError(f"{self.name}: the blocks of {type(self.module).__name__} are not known")
        return self._layers[name]

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


def check_name(name: str) -> None:
    """Raises ValueError for what is neither a folder, nor of the form of a Hub id, nor one of timm's names."""
    if not name.startswith("timm:") and not os.path.exists(name) and not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(
            f"there is no model {name!r}: no folder of that name, and ids on the Hub have the form organization/name"
        )


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


def layer_numbers(module: nn.Module, blocks: list[nn.Module]) -> dict[str, int]:
    """The layer of each parameter by its name: 0 before the first block, i in the i-th (from 1), L + 1 after the last.

    What lies between two blocks in the order of registration, such as the convolution that halves the map, counts to
    the later one. Empty without blocks.
    """
    own = {id(parameter): number for number, block in enumerate(blocks, 1) for parameter in block.parameters()}
    parameters = list(module.named_parameters()) if blocks else []
    following, numbers = len(blocks) + 1, {}
    for name, parameter in reversed(parameters):
        following = own.get(id(parameter), following)
        numbers[name] = following
    for name, parameter in parameters:
        if id(parameter) in own:
            break
        numbers[name] = 0
    return numbers


def check_preprocessing(path: str, size: Sequence, mean: Any, std: Any) -> None:
    """Raises ValueError for sizes and statistics that no model takes: the file they stand in may be anybody's."""
    if not all(isinstance(side, int) and 1 <= side <= LARGEST_SIDE for side in size):
        raise ValueError(f"{path}: images of {size} pixels are not taken, at most {LARGEST_SIDE} on a side")
    for name, values in (("image_mean", mean), ("image_std", std)):
        listed = isinstance(values, list | tuple) and len(values) in (1, 3)
        if not listed or not all(type(number) in (int, float) and math.isfinite(number) for number in values):
            raise ValueError(f"{path}: {name} is {str(values)[:80]}, not a number for each of 3 channels")
    if not all(number > 0 for number in std):
        raise ValueError(f"{path}: image_std has to be above 0, not {std}")
