# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""How good the backbone of a run is now: kNN and linear accuracy on a sample of the labeled images.

n images, d width of the backbone.
"""

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from modeling_visreg import image_processor_for

from ..data import Source
from ..evaluation.features import Features, batches, cls_tokens
from ..evaluation.knn import knn_accuracy
from ..evaluation.linear import HeadOptions, linear
from ..evaluation.task import make_task
from ..loop.run import Run
from ..objective import effective_rank
from .memory_cache import MemoryCache


IMAGES = MemoryCache(count=2)


def measure_backbone(run: Run, limit: int | None, linear_epochs: int) -> dict[str, float]:
    """Accuracies and the effective rank of the features.

    `linear` is the test accuracy of a head whose learning rate was chosen on a tenth of the training images,
    `validation` its accuracy there: what may be used to choose between runs.

    Args:
        limit: images of each split, a sample that is the same in every run; None for all.
    """
    train, test = (features(run, source, limit) for source in (run.probe_source, run.held_out))
    outcome = linear(make_task(train, test), HeadOptions(epochs=linear_epochs), device=run.accelerator.device)
    return {
        "knn": knn_accuracy(train.features, train.labels, test.features, test.labels),
        "linear": outcome.value,
        "validation": outcome.selection["value"],
        "feature_rank": effective_rank(test.features).item(),
    }


@torch.no_grad()
def features(run: Run, source: Source, limit: int | None) -> Features:
    """CLS tokens after the final norm, (n, d), of the labeled images of a split."""
    backbone = run.model.base_model
    training_mode = backbone.training
    backbone.eval()
    rows, labels = [], []
    for pixels, targets in probe_images(backbone.config, source, limit):
        rows.append(cls_tokens(backbone, pixels.to(run.accelerator.device), 1).float().cpu())
        labels.append(targets)
    backbone.train(training_mode)
    known = torch.cat(labels) >= 0
    return Features(torch.cat(rows)[known], torch.cat(labels)[known], [""] * int(known.sum()))


def probe_images(config: Any, source: Source, limit: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """(pixels (b, C, H, W), labels (b,)) of a sample of a split; held in memory where they are few and small."""
    count = min(limit or sys.maxsize, source.num_examples or sys.maxsize)
    height, width = config.native_size
    if not IMAGES.has_room_for(count * height * width * 12):
        return read_images(config, source, limit)
    key = f"{source.content_fingerprint} {height} {width} {limit}"
    return iter(IMAGES.get(key, lambda: list(read_images(config, source, limit))))


def read_images(config: Any, source: Source, limit: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """The same, straight from the source."""
    processor = image_processor_for(config)
    for images, targets, _names in batches(source.examples(limit=limit, seed=0), 500):
        labels = [-1 if target is None else target for target in targets]
        yield processor(images, return_tensors="pt")["pixel_values"], torch.tensor(labels)
