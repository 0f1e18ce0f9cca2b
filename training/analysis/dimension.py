# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Figure 4: accuracy against the dimension D of the projections at a fixed number of slices."""

from pathlib import Path

from ..run_folder import Json
from . import figures
from .comparison import MARGIN, UNTRAINED, Entry, Outcomes, untrained
from .options import AnalysisOptions
from .records import points
from .runs import base_value


SMALL = (16, 64, 256)
PAPER = (64, 128, 256, 512, 1024, 2048)


def entries(options: AnalysisOptions) -> list[Entry]:
    base = base_value(options, "projection_size")
    sizes = options.pick(SMALL, PAPER)
    return [Entry(f"D {D}", {"projection_size": None if base == D else D}) for D in sizes] + [untrained()]


def measure(outcomes: Outcomes) -> Json:
    sizes, linear = outcomes.options.pick(SMALL, PAPER), outcomes.linear
    low, middle, high = (f"D {D}" for D in (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
    claims = [
        points(
            f"{high} loses less than 1 point to {middle} at the same K (linear)", linear[high], linear[middle], MARGIN
        ),
        points(f"{middle} is above {low} (linear)", linear[middle], linear[low]),
    ]
    return outcomes.record([outcomes.accuracy_table("Projection dimension")], claims, dims=list(sizes))


def draw(record: Json, folder: Path) -> list[str]:
    """dimension.png"""
    figure, (axis,) = figures.sheet("Accuracy against the projection dimension, slices fixed")
    dims, values = record["dims"], record["values"]
    looks = {"linear": ("linear", {}), "knn": ("20-NN", {"linestyle": "--", "marker": "s", "color": "#e0a020"})}
    for name, (title, look) in looks.items():
        rows = zip(*(values[name][f"D {D}"] for D in dims), strict=True)
        figures.band(axis, dims, [[100 * value for value in row] for row in rows], "visreg", title, **look)
        floor = values[name][UNTRAINED]
        color = look.get("color", figures.COLORS["visreg"])
        axis.axhline(100 * sum(floor) / len(floor), color=color, linestyle=":", label=f"{title}, untrained")
    axis.set_xscale("log", base=2)
    axis.set_xticks(dims, map(str, dims))
    axis.set(xlabel="projection dimension D", ylabel="accuracy, % (band: range over seeds)")
    axis.legend(fontsize=8)
    return [figures.save(figure, folder / "dimension.png")]
