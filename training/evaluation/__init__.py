# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F401
"""From a model and labeled images to a number with its interval.

    result = evaluate(open_backbone("out"), open_sources("digits"), KnnOptions(k=(20,)))

Reading order:
options.py                       what evaluations share
preprocessing.py                 the one test transform
features.py, cache.py            images to features, and where these are kept
splits.py                        sources, tasks, and whose labels mean what
metrics.py, intervals.py         scores to numbers; outcome.py puts them together, and makes every choice;
                                 metric_classes.py has them for `evaluate`
nearest.py, logistic.py          the solvers: kNN, L-BFGS; heads.py is SGD, augmented.py on images
inputs.py, protocols/            what a protocol is given; one file a protocol
search.py                        the images that look most like a photo
run.py, suite.py, frozen.py      a protocol on a data set, on a suite (suite_datasets.py), at the end of a run
reports/                         result files, tables beside published numbers, pictures
"""

from typing import TYPE_CHECKING

from ..lazy import face


if TYPE_CHECKING:
    from .cache import FeatureCache, cached_features
    from .features import Features, extract_features
    from .options import FeatureOptions
    from .run import evaluate
    from .splits import Sources, open_sources
    from .suite import run_suite


# File -> its public names, imported when they are used: what only reads options needs no torch.
_NAMES = {
    "cache": (
        "FeatureCache",
        "cached_features",
    ),
    "features": (
        "Features",
        "extract_features",
    ),
    "options": ("FeatureOptions",),
    "run": ("evaluate",),
    "splits": (
        "Sources",
        "open_sources",
    ),
    "suite": ("run_suite",),
}
__all__ = sorted(name for names in _NAMES.values() for name in names)
__getattr__, __dir__ = face(__name__, _NAMES)
