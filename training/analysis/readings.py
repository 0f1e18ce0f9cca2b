# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""How good the backbone of a run is now: kNN and linear accuracy on a sample of the labelled images.

n images, d width of the backbone.
"""

import sys
from collections.abc import Iterable, Iterator
from typing import Any

from ..backbones import wrap_backbone
from ..evaluation.features import FeatureOptions, Features, extract, subset
from ..evaluation.preprocessing import EvaluationTransform, transform_for
from ..evaluation.protocols.knn import knn_accuracy
from ..evaluation.protocols.linear import LinearOptions, linear
from ..evaluation.splits import make_task
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
    options = LinearOptions(epochs=linear_epochs)
    outcome = linear(make_task(train, test), options, parts.accelerator.device)
    return {
        "step": step,
        "terms": terms,
        "knn": knn_accuracy(train.features, train.labels, test.features, test.labels),
        "linear": outcome.value,
        "validation": outcome.selection["value"],
        "feature_rank": effective_rank(test.features).item(),
    }


def features(parts: Run, source: Any, limit: int | None) -> Features:
    """CLS tokens after the final norm, (n, d), of the labeled images of a split."""
    backbone = wrap_backbone(parts.model)
    images = probe_images(transform_for(backbone), source, limit)
    found, _positions = extract(backbone, transform_for(backbone), images, FeatureOptions(layers=1), batch_size=500)
    return subset(found, (found.labels >= 0).nonzero().flatten())


def probe_images(transform: EvaluationTransform, source: Any, limit: int | None) -> Iterable[tuple]:
    """What `extract` takes of a sample of a split; kept in memory where the images are few and small."""
    count = min(limit or sys.maxsize, source.num_examples or sys.maxsize)
    height, width = transform.size
    if not IMAGES.has_room_for(count * height * width * 3):
        return read_images(transform, source, limit)
    key = f"{source.content_fingerprint} {height} {width} {limit}"
    return IMAGES.get(key, lambda: list(read_images(transform, source, limit)))


def read_images(transform: EvaluationTransform, source: Any, limit: int | None) -> Iterator[tuple]:
    for number, (image, label, name) in enumerate(source.examples(limit=limit, seed=0)):
        yield number, transform(image), label, name
