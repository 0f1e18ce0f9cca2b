# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F401
"""The VISReg objective, its terms, and the baselines in the same frame: pure tensor code that needs only torch.

    terms.py                  each term as a function of z, with its equation
    objective.py              the terms put together, on one process or many
    merged.py                 the same terms as one operator, for an NVIDIA GPU
    recorded.py               that operator as one CUDA graph, for shapes that come again
    options.py                what a recipe may set
    regularizers.py           the one table of regularizers: name, title, loss, source
    sliced.py, kernels/       the sliced distance to a Gaussian; one pass over the slices, by kind of device
    sigreg.py, baselines.py   the other regularizers
    slices.py                 random directions of a step, and a rank's part of them
    gather.py                 the batch of all processes, with gradient
    checks.py                 what every term checks before it computes
    diagnostics.py            ranks and deviations that show a collapse early

Shapes everywhere: z (V views, B images, D dimension), directions (D, K slices).
"""

from typing import TYPE_CHECKING

from ..lazy import face


if TYPE_CHECKING:
    from .baselines import barlow_twins_loss, vicreg_loss
    from .diagnostics import effective_rank, embedding_diagnostics
    from .gather import gather_batch, mean_over_ranks
    from .objective import VISRegObjective, VISRegTerms
    from .options import ObjectiveOptions
    from .regularizers import REGULARIZERS
    from .sigreg import sigreg_loss
    from .slices import Slices, draw_directions, rank_share, sample_directions
    from .terms import center_loss, invariance_loss, scale_loss, shape_loss, sliced_wasserstein_loss, visreg_loss


# File -> its public names, imported when they are used: the options and the table of regularizers need no torch.
_NAMES = {
    "baselines": ("barlow_twins_loss", "vicreg_loss"),
    "diagnostics": ("effective_rank", "embedding_diagnostics"),
    "gather": ("gather_batch", "mean_over_ranks"),
    "objective": ("VISRegObjective", "VISRegTerms"),
    "options": ("ObjectiveOptions",),
    "regularizers": ("REGULARIZERS",),
    "sigreg": ("sigreg_loss",),
    "slices": ("Slices", "draw_directions", "rank_share", "sample_directions"),
    "terms": (
        "center_loss", "invariance_loss", "scale_loss", "shape_loss", "sliced_wasserstein_loss", "visreg_loss",
    ),
}  # fmt: skip
__all__ = sorted(name for names in _NAMES.values() for name in names)
__getattr__, __dir__ = face(__name__, _NAMES)
