# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The options of the objective, each said once: default, meaning, source, allowed values. Imports no torch."""

from dataclasses import dataclass

from ..option import NOT_NEGATIVE, POSITIVE, SHARE, option
from .regularizers import REGULARIZERS


@dataclass(frozen=True)
class ObjectiveOptions:
    """The objective: lambda * (scale + shape + center) + (1 - lambda) * invariance (paper: equations 1 to 8)."""

    regularizer: str = option("visreg", "what keeps the embedding spread", REGULARIZERS)
    regularization_weight: float = option(0.9, "lambda, [0, 1] (paper: 0.9 for B/16; 0.6 for small data sets)", SHARE)
    scale_weight: float = option(1.0, "weight of the scale term (paper: 1)", NOT_NEGATIVE)
    shape_weight: float = option(
        1.0, "weight of the shape term (paper: 1; up to 4 for long-tailed or low-rank data)", NOT_NEGATIVE
    )
    center_weight: float = option(1.0, "weight of the center term (paper: 1)", NOT_NEGATIVE)
    num_slices: int = option(4096, "K, random directions a step (paper: 4096)", POSITIVE.up_to(1 << 20))
    slices: str = option(
        "shared", "K in total, each rank a part, or K on each rank as published", ("shared", "per_rank")
    )
    statistics: str = option("global", "over the whole batch or over each rank's", ("global", "local"))
    eps: float = option(1e-6, "added to sigma (released code: 1e-6)", POSITIVE)
