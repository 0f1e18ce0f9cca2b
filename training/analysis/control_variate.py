# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Beyond the paper: whether fewer slices K train as well with the control variate of the shape term as without it."""

from pathlib import Path
from typing import Any

from . import figures
from .comparison import MARGIN, UNTRAINED, Entry, Outcomes, runs_of, untrained
from .options import Options
from .records import points
from .runs import Training
from .slices import changed, counts


PLAIN, VARIATE = "published estimator", "control variate"


def label(estimator: str, slices: int) -> str:
    return f"{estimator}, K {slices}"


def entries(options: Options) -> list[Entry]:
    found = []
    for K in counts(options):
        changes = changed(options, "visreg", K)
        found += [Entry(label(PLAIN, K), changes), Entry(label(VARIATE, K), changes | {"control_variate": True})]
    return [*found, untrained()]


def runs(options: Options) -> list[Training]:
    return runs_of(options, entries(options))


def measure(options: Options, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    outcomes = Outcomes(options, entries(options), results)
    linear, few, many = outcomes.linear, counts(options)[0], counts(options)[-1]
    best = linear[label(PLAIN, many)]
    claims = [
        points(
            f"At K {K} the control variate is above the published estimator (linear)",
            linear[label(VARIATE, K)],
            linear[label(PLAIN, K)],
        )
        for K in counts(options)
    ]
    claims += [
        points(
            f"K {few}, {name}: loses less than 1 point to K {many} (linear)", linear[label(name, few)], best, MARGIN
        )
        for name in (PLAIN, VARIATE)
    ]
    table = outcomes.accuracy_table("Number of slices and estimator of the shape gradient")
    return outcomes.record([table], claims, counts=counts(options))


def draw(record: dict[str, Any], folder: Path) -> list[str]:
    """control_variate.png"""
    figure, (axis,) = figures.sheet("Accuracy against slices, with and without the control variate")
    counts_, values = record["counts"], record["values"]["linear"]
    for name, style in ((PLAIN, {}), (VARIATE, {"color": "#e0a020", "linestyle": "--"})):
        rows = zip(*(values[label(name, K)] for K in counts_), strict=True)
        figures.band(axis, counts_, [[100 * value for value in row] for row in rows], "visreg", name, **style)
    floor = values[UNTRAINED]
    axis.axhline(100 * sum(floor) / len(floor), color=figures.GREY, linestyle=":", label="untrained")
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts_, map(str, counts_))
    D = record["settings"]["base"].get("projection_size", 128)
    axis.set(xlabel=f"slices K (D {D})", ylabel="linear accuracy, % (band: range over seeds)")
    axis.legend(frameon=False, fontsize=8)
    return [figures.save(figure, folder / "control_variate.png")]
