# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Weights of scale : shape : center. The paper takes 1 : 1 : 1 for large data, a heavier shape for hard ones."""

from pathlib import Path

from ..run_folder import Json
from .comparison import MARGIN, Entry, Outcomes, draw_entries, untrained
from .options import AnalysisOptions
from .records import points


EQUAL = "1 : 1 : 1"
HEAVIER = 4.0  # the paper's largest


def entries(options: AnalysisOptions) -> list[Entry]:
    return [
        Entry(EQUAL, {}),
        Entry("4 : 1 : 1", {"scale_weight": HEAVIER}),
        Entry("1 : 4 : 1", {"shape_weight": HEAVIER}),
        Entry("1 : 1 : 4", {"center_weight": HEAVIER}),
        untrained(),
    ]


def measure(outcomes: Outcomes) -> Json:
    linear = outcomes.linear
    claims = [
        points(f"Equal weights lose less than 1 point to {other} (linear)", linear[EQUAL], linear[other], MARGIN)
        for other in list(linear)[1:4]
    ]
    claims.append(points("A heavier shape is above equal weights (linear)", linear["1 : 4 : 1"], linear[EQUAL]))
    return outcomes.record([outcomes.accuracy_table("scale : shape : center")], claims)


def draw(record: Json, folder: Path) -> list[str]:
    """weights.png"""
    return draw_entries(record, "Accuracy against the weights of scale : shape : center", folder / "weights.png")
