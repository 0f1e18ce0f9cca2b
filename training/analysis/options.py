# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The options of every analysis, and which analyses there are."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from ..option import POSITIVE, option


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
class AnalysisOptions:
    """What the user asked for."""

    output_dir: Path = option(Path("runs/analysis"), "folder of results, figures, report and the cache of trainings")
    scale: str = option("small", "small: minutes on CPU cores; paper: its sizes, for GPUs", SCALES)
    seeds: int = option(
        3, "repetitions of every training and draw, seeds from 0 on; intervals need 2", POSITIVE.up_to(10_000)
    )
    workers: int | None = option(None, "trainings at a time; default: one a GPU, or a CPU core", POSITIVE)
    dataset: str | None = option(
        None, "Hub id, folder or 'digits'; default: uoft-cs/cifar10, at paper scale the recipe's"
    )
    config: str | None = option(
        None, "recipe that trainings start from; default: ours, at paper scale vit_small_imagenette"
    )
    max_steps: int | None = option(None, "updates of a training; default: the recipe's", POSITIVE.up_to(10**12 - 1))
    eval_split: str | None = option(None, "held-out split; default: the recipe's")

    @property
    def all_seeds(self) -> range:
        """The seeds themselves."""
        return range(self.seeds)

    @property
    def small(self) -> bool:
        return self.scale == "small"

    def pick(self, small: Any, paper: Any) -> Any:
        """The value of this scale."""
        return small if self.small else paper


def module_of(name: str) -> ModuleType:
    """The module of an analysis: `draw(record, folder)` makes the figures of its record.

    One that trains has `entries(options)` and `measure(outcomes)`, another `settings(options)` and `measure(options)`.
    """
    return importlib.import_module(f".{name}", __package__)
