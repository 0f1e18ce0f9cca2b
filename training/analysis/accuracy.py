# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""How good the backbone of a run is now: kNN and linear accuracy on a sample of the labeled images.

n images, d width of the backbone.
"""

import sys
from collections.abc import Iterable, Iterator

from ..backbones import wrap_backbone
from ..data import Source
from ..evaluation.features import Features, extract, subset
from ..evaluation.options import FeatureOptions
from ..evaluation.preprocessing import EvaluationTransform, transform_for
from ..evaluation.protocols.knn import knn_accuracy
from ..evaluation.protocols.linear import LinearOptions, linear
from ..evaluation.splits import make_task
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
    outcome = linear(make_task(train, test), LinearOptions(epochs=linear_epochs), run.accelerator.device)
    return {
        "knn": knn_accuracy(train.features, train.labels, test.features, test.labels),
        "linear": outcome.value,
        "validation": outcome.selection["value"],
        "feature_rank": effective_rank(test.features).item(),
    }


def features(run: Run, source: Source, limit: int | None) -> Features:
    """CLS tokens after the final norm, (n, d), of the labeled images of a split."""
    backbone = wrap_backbone(run.model)
    transform = transform_for(backbone)
    images = probe_images(transform, source, limit)
    found, _positions = extract(backbone, transform, images, FeatureOptions(layers=1), batch_size=500)
    return subset(found, (found.labels >= 0).nonzero().flatten())


def probe_images(transform: EvaluationTransform, source: Source, limit: int | None) -> Iterable[tuple]:
    """What `extract` takes of a sample of a split; held in memory where the images are few and small."""
    count = min(limit or sys.maxsize, source.num_examples or sys.maxsize)
    height, width = transform.size
    if not IMAGES.has_room_for(count * height * width * 3):
        return read_images(transform, source, limit)
    key = f"{source.content_fingerprint} {height} {width} {limit}"
    return IMAGES.get(key, lambda: list(read_images(transform, source, limit)))


def read_images(transform: EvaluationTransform, source: Source, limit: int | None) -> Iterator[tuple]:
    """The same, straight from the source."""
    for number, (image, label, name) in enumerate(source.examples(limit=limit, seed=0)):
        yield number, transform(image), label, name
