# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The VISReg objective, its terms, and the baselines in the same frame: pure tensor code that needs only torch.

Shapes everywhere: z (V views, B images, D dimension), directions (D, K slices).
"""

from .baselines import barlow_twins_loss, vicreg_loss
from .diagnostics import diagnostics, effective_rank
from .gather import gather_batch, mean_over_ranks
from .objective import REGULARIZERS, SLICES, STATISTICS, VISRegObjective, VISRegTerms
from .sigreg import sigreg_loss
from .slices import Slices, draw_directions, rank_share, sample_directions
from .terms import center_loss, invariance_loss, scale_loss, shape_loss, sliced_wasserstein_loss


__all__ = [
    "REGULARIZERS",
    "SLICES",
    "STATISTICS",
    "Slices",
    "VISRegObjective",
    "VISRegTerms",
    "barlow_twins_loss",
    "center_loss",
    "diagnostics",
    "draw_directions",
    "effective_rank",
    "gather_batch",
    "invariance_loss",
    "mean_over_ranks",
    "rank_share",
    "sample_directions",
    "scale_loss",
    "shape_loss",
    "sigreg_loss",
    "sliced_wasserstein_loss",
    "vicreg_loss",
]
