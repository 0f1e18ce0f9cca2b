# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The one table of regularizers: `--regularizer`, the objective, the analyses, the figures and the cards read it.

To add one: its loss in a file of this folder, a function of z (V, B, D), or of z and directions (D, K), that returns
a scalar; and a row here. Nothing is imported before `load`, so the names and titles come without torch.
"""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Regularizer:
    """What keeps the embedding spread.

    Attributes:
        title: its name in figures, tables and on a model card.
        loss: "file.function" in this folder.
        takes_directions: whether the loss is `loss(z, directions)`; `loss(z)` otherwise.
        source: paper of the formula.
    """

    title: str
    loss: str
    takes_directions: bool
    source: str

    def load(self) -> Callable:
        """The loss as a function of (z, directions), whether or not it takes directions."""
        file, _, name = self.loss.partition(".")
        loss = getattr(importlib.import_module(f".{file}", __package__), name)
        return loss if self.takes_directions else functools.partial(_without_directions, loss)


def _without_directions(loss: Callable, z: "Tensor", directions: "Tensor") -> "Tensor":
    return loss(z)


TABLE = {
    "visreg": Regularizer("VISReg", "terms.visreg_loss", True, "arXiv 2606.02572, equations 1 to 6"),
    "sigreg": Regularizer("SIGReg", "sigreg.sigreg_loss", True, "arXiv 2511.08544 (LeJEPA)"),
    "swd": Regularizer("sliced Wasserstein", "terms.sliced_wasserstein_loss", True, "arXiv 2606.02572, section 6"),
    "vicreg": Regularizer("VICReg", "baselines.vicreg_loss", False, "arXiv 2105.04906, section 4.1"),
    "barlow": Regularizer("Barlow Twins", "baselines.barlow_twins_loss", False, "arXiv 2103.03230, section 2.2"),
}
REGULARIZERS = tuple(TABLE)
