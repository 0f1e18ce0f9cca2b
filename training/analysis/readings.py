# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""How good the backbone of a run is now: kNN and linear accuracy on a sample of the labelled images.

n images, d width of the backbone.
"""

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from modeling_visreg import image_processor_for

from ..evaluation.features import Features, batches, cls_tokens
from ..evaluation.knn import knn_accuracy
from ..evaluation.linear import HeadOptions, linear
from ..evaluation.task import make_task
from ..loop.assembly import Run
from ..objective import effective_rank
from .kept import Kept


IMAGES = Kept(count=2)


def reading(
    parts: Run, step: int, terms: dict[str, float] | None, limit: int | None, linear_epochs: int
) -> dict[str, Any]:
    """Terms since the last reading and accuracies now; {} on all processes but the main one.

    `linear` is the test accuracy of a head whose learning rate was chosen on a tenth of the training images,
    `validation` its accuracy there: what may be used to choose between runs.

    Args:
        limit: images of each split, a sample that is the same in every run; None for all.
    """
    if not parts.accelerator.is_main_process:
        return {}
    train, test = (features(parts, source, limit) for source in (parts.probe_source, parts.held_out))
    options = HeadOptions(epochs=linear_epochs)
    outcome = linear(make_task(train, test), options, device=parts.accelerator.device)
    return {
        "step": step,
        "terms": terms,
        "knn": knn_accuracy(train.features, train.labels, test.features, test.labels),
        "linear": outcome.value,
        "validation": outcome.selection["value"],
        "feature_rank": effective_rank(test.features).item(),
    }


@torch.no_grad()
def features(parts: Run, source: Any, limit: int | None) -> Features:
    """CLS tokens after the final norm, (n, d), of the labelled images of a split."""
    backbone = parts.model.base_model
    training_mode = backbone.training
    backbone.eval()
    rows, labels = [], []
    for pixels, targets in probe_images(backbone.config, source, limit):
        rows.append(cls_tokens(backbone, pixels.to(parts.accelerator.device), 1).float().cpu())
        labels.append(targets)
    backbone.train(training_mode)
    known = torch.cat(labels) >= 0
    return Features(torch.cat(rows)[known], torch.cat(labels)[known], [""] * int(known.sum()))


def probe_images(config: Any, source: Any, limit: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """(pixels (b, C, H, W), labels (b,)) of a sample of a split; kept in memory where they are few and small."""
    count = min(limit or sys.maxsize, source.num_examples or sys.maxsize)
    height, width = config.native_size
    if not IMAGES.has_room_for(count * height * width * 12):
        return read_images(config, source, limit)
    key = f"{source.content_fingerprint} {height} {width} {limit}"
    return iter(IMAGES.get(key, lambda: list(read_images(config, source, limit))))


def read_images(config: Any, source: Any, limit: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    processor = image_processor_for(config)
    for images, targets, _names in batches(source.examples(limit=limit, seed=0), 500):
        labels = [-1 if target is None else target for target in targets]
        yield processor(images, return_tensors="pt")["pixel_values"], torch.tensor(labels)
