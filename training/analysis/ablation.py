# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Which terms are needed: variance and invariance without sketching (no shape), and sketching without scale."""

from pathlib import Path

from ..run_folder import Json
from .comparison import UNTRAINED, Entry, Outcomes, draw_entries, untrained
from .options import AnalysisOptions
from .records import claim, points


FULL, NO_SHAPE, NO_SCALE = "full VISReg", "without shape (no sketching)", "without scale"


def entries(options: AnalysisOptions) -> list[Entry]:
    return [
        Entry(FULL, {}),
        Entry(NO_SHAPE, {"shape_weight": 0.0}),
        Entry(NO_SCALE, {"scale_weight": 0.0}),
        untrained(),
    ]


def measure(outcomes: Outcomes) -> Json:
    linear, ranks = outcomes.linear, outcomes.values("feature_rank")
    claims = [
        points("Sketching helps: full VISReg is above VISReg without shape (linear)", linear[FULL], linear[NO_SHAPE]),
        points(
            "The scale term helps: full VISReg is above VISReg without scale (linear)", linear[FULL], linear[NO_SCALE]
        ),
        points(
            "Without shape the model still learns something (linear, above untrained)",
            linear[NO_SHAPE],
            linear[UNTRAINED],
        ),
        claim(
            "Sketching keeps features of higher rank (effective rank, full less without shape)",
            [a - b for a, b in zip(ranks[FULL], ranks[NO_SHAPE], strict=True)],
        ),
    ]
    return outcomes.record([outcomes.accuracy_table("Terms left out")], claims)


def draw(record: Json, folder: Path) -> list[str]:
    """ablation.png"""
    return draw_entries(record, "What is lost without sketching, and without scale", folder / "ablation.png")
