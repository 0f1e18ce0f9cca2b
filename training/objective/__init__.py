# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: F401
"""The VISReg objective, its terms, and the baselines in the same frame: pure tensor code that needs only torch.

    terms.py                  each term as a function of z, with its equation
    objective.py              the terms put together, on one process or many
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

import importlib
from typing import TYPE_CHECKING


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
# A name that is also a file's would be hidden by the module.
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
_FILES = {name: file for file, names in _NAMES.items() for name in names}
__all__ = [*sorted(_FILES)]


def __getattr__(name: str) -> object:
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f".{_FILES[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_FILES})
