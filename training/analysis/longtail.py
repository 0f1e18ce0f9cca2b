# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Regularizers on long-tailed data (the CIFAR-LT protocol) in pretraining; probes and test are balanced."""

from pathlib import Path

from ..run_folder import Json
from . import hard_data
from .comparison import Entry, Outcomes
from .options import AnalysisOptions


SMALL, PAPER = 100.0, 256.0  # largest over smallest class; ImageNet-LT: 1280 to 5 images


def entries(options: AnalysisOptions) -> list[Entry]:
    return hard_data.entries({"imbalance_factor": options.pick(SMALL, PAPER)}, {})


def measure(outcomes: Outcomes) -> Json:
    factor = outcomes.options.pick(SMALL, PAPER)
    return hard_data.measure(outcomes, "long-tailed data", imbalance=factor)


def draw(record: Json, folder: Path) -> list[str]:
    """longtail.png"""
    message = f"Pretrained on a long tail (largest class {record['imbalance']:g} times the smallest)"
    return hard_data.draw(record, message, folder / "longtail.png")
