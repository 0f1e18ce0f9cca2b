# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Frozen features of labelled images, as AutoModel and the checkpoint's own image processor give them.

n images, d width of the backbone, L layers; features (n, L * d).
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import nn


class Features(NamedTuple):
    """`features`: (n, L * d) float32 on the CPU; `labels`: (n,), -1 where an image has none; `ids`: n strings."""

    features: torch.Tensor
    labels: torch.Tensor
    ids: list[str]


@torch.no_grad()
def extract_features(
    backbone: nn.Module,
    processor: Any,
    examples: Iterable[tuple[Any, int | None, str]],
    layers: int = 1,
    batch_size: int = 256,
) -> Features:
    """CLS tokens of the last `layers` blocks, each through the final norm, concatenated (paper, evaluation: 4 layers).

    The model is put in evaluation mode, so that drop path is off, and back into the mode it was in.

    Args:
        backbone: a `VISRegViTModel` on its device.
        processor: image processor of the checkpoint.
        examples: (PIL image, label or None, id).

    Raises:
        ValueError: there is no image.
    """
    training = backbone.training
    backbone.eval()
    rows, labels, ids = [], [], []
    for images, targets, names in batches(examples, batch_size):
        pixels = processor(images, return_tensors="pt")["pixel_values"].to(backbone.device)
        rows.append(cls_tokens(backbone, pixels, layers).float().cpu())
        labels += [-1 if target is None else target for target in targets]
        ids += names
    backbone.train(training)
    if not rows:
        raise ValueError("there is no image to take features of")
    return Features(torch.cat(rows), torch.tensor(labels), ids)


def cls_tokens(backbone: nn.Module, pixels: torch.Tensor, layers: int) -> torch.Tensor:
    """(B, layers * d) from pixels (B, C, H, W)."""
    if layers == 1:
        return backbone(pixels).pooler_output
    states = backbone(pixels, output_hidden_states=True).hidden_states[-layers:]
    return torch.cat([backbone.layernorm(state)[:, 0] for state in states], dim=1)


def batches(examples: Iterable, size: int) -> Iterator[tuple[list, list, list]]:
    """Examples transposed into lists of at most `size`; the last, shorter one is kept."""
    source = iter(examples)
    while chunk := list(islice(source, size)):
        yield tuple(list(column) for column in zip(*chunk, strict=True))
