# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What every analysis is told, and which analyses there are."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any


# Name -> what it shows (method, section 6). A module of this folder each; `all` runs them in this order.
ANALYSES = {
    "collapse": "gradient norm against feature norm and rank (figure 2)",
    "cost": "time and memory against batch and dimension (figure 3)",
    "regularizers": "accuracy of five regularizers, everything else equal",
    "ablation": "variance and invariance without sketching, against full VISReg",
    "weights": "accuracy against scale : shape : center",
    "dimension": "accuracy against the projection dimension (figure 4)",
    "slices": "accuracy against the number of slices (figure 5)",
    "ranks": "accuracy against the number of processes (figure 6)",
    "correlation": "training loss against accuracy (figure 7)",
    "longtail": "accuracy of the regularizers on long-tailed data",
    "lowrank": "accuracy of the regularizers on low-rank data",
}
SCALES = ("small", "paper")


@dataclass(frozen=True)
class Options:
    """What the user asked for.

    Attributes:
        output_dir: folder of results, figures, report and the cache of training runs.
        scale: `small` for CPU cores, `paper` for GPUs.
        seeds: every training and every draw is repeated with each.
        workers: trainings at a time.
        dataset: what `open_stream` opens; None for the scale's.
        config: recipe that the runs start from; None for the scale's.
        max_steps: updates of a run; None for the recipe's.
        eval_split: held-out split; None for the recipe's.
    """

    output_dir: Path
    scale: str = "small"
    seeds: tuple[int, ...] = (0, 1, 2)
    workers: int = 1
    dataset: str | None = None
    config: str | None = None
    max_steps: int | None = None
    eval_split: str | None = None

    @property
    def small(self) -> bool:
        return self.scale == "small"

    def pick(self, small: Any, paper: Any) -> Any:
        """The value of this scale."""
        return small if self.small else paper


def module_of(name: str) -> ModuleType:
    """The module of an analysis: `measure(options, ...)` gives its record, `draw(record, folder)` its figures."""
    return importlib.import_module(f".{name}", __package__)
