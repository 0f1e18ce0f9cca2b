# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Figure 5: accuracy against the number of slices K, from D / 8 to 16 D, for the three sliced regularizers."""

from pathlib import Path

from ..objective.regularizers import TABLE
from ..run_folder import Json
from . import figures
from .comparison import MARGIN, OWN_LAMBDA, UNTRAINED, Entry, Outcomes, untrained
from .options import AnalysisOptions
from .records import claim, points
from .runs import base_value


SLICED = tuple(name for name, regularizer in TABLE.items() if regularizer.takes_directions)
SMALL = (1 / 8, 1, 16)  # K / D (paper: D / 8 to 16 D at D 256)
PAPER = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8, 16)


def counts(options: AnalysisOptions) -> list[int]:
    D = base_value(options, "projection_size")
    return [max(1, int(D * share)) for share in options.pick(SMALL, PAPER)]


def label(name: str, slices: int) -> str:
    return f"{figures.TITLES[name]}, K {slices}"


def changed(options: AnalysisOptions, name: str, slices: int) -> Json:
    """What differs from the base run; each regularizer has its own lambda."""
    base = base_value(options, "num_slices")
    changes = {"regularizer": None if name == "visreg" else name, "num_slices": None if slices == base else slices}
    return changes | {"regularization_weight": OWN_LAMBDA.get(name)}


def entries(options: AnalysisOptions) -> list[Entry]:
    found = [Entry(label(name, K), changed(options, name, K), name) for name in SLICED for K in counts(options)]
    return [*found, untrained()]


def measure(outcomes: Outcomes) -> Json:
    linear, few, many = outcomes.linear, counts(outcomes.options)[0], counts(outcomes.options)[-1]
    ours = (linear[label("visreg", few)], linear[label("visreg", many)])
    claims = [points(f"VISReg at K {few} (D / 8) loses less than 1 point to K {many} (linear)", *ours, MARGIN)]
    for name in SLICED[1:]:
        lost = [a - b for a, b in zip(linear[label(name, many)], linear[label(name, few)], strict=True)]
        statement = f"{figures.TITLES[name]} loses more than 1 point at K {few} (D / 8) against K {many} (linear)"
        claims.append(claim(statement, lost, MARGIN, unit=" points", scale=100))
        other = linear[label(name, few)]
        claims.append(points(f"At K {few} VISReg is above {figures.TITLES[name]} (linear)", ours[0], other))
    return outcomes.record(
        [outcomes.accuracy_table("Number of slices")],
        claims,
        counts=counts(outcomes.options),
        dimension=base_value(outcomes.options, "projection_size"),
    )


def draw(record: Json, folder: Path) -> list[str]:
    """slices.png"""
    figure, (axis,) = figures.sheet("Accuracy against the number of slices")
    counts_, values = record["counts"], record["values"]["linear"]
    for name in SLICED:
        rows = zip(*(values[label(name, K)] for K in counts_), strict=True)
        figures.band(axis, counts_, [[100 * value for value in row] for row in rows], name)
    floor = values[UNTRAINED]
    axis.axhline(100 * sum(floor) / len(floor), color=figures.GRAY, linestyle=":", label="untrained")
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts_, map(str, counts_))
    axis.set(xlabel=f"slices K (D {record['dimension']})", ylabel="linear accuracy, % (band: range over seeds)")
    axis.legend(frameon=False, fontsize=8)
    return [figures.save(figure, folder / "slices.png")]
