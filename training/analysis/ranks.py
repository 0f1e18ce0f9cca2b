# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Figure 6: accuracy against the number of processes at a fixed K each: every process draws slices of its own."""

from pathlib import Path

from ..run_folder import Json
from . import figures
from .comparison import MARGIN, UNTRAINED, Entry, Outcomes, untrained
from .options import AnalysisOptions
from .records import points
from .runs import base_value


SMALL = (1, 2, 4)
PAPER = (1, 2, 4, 8)


def slices_each(options: AnalysisOptions) -> int:
    """K of a process: D / 8 at small scale, where 4 processes are few; D / 4 at the paper's."""
    return max(1, base_value(options, "projection_size") // options.pick(8, 4))


def entries(options: AnalysisOptions) -> list[Entry]:
    K = slices_each(options)
    found = [Entry("1 process", {"num_slices": K})]  # alone, shared and own slices are the same thing
    found += [
        Entry(f"{world} processes", {"num_slices": K, "slices": "per_rank", "processes": world})
        for world in options.pick(SMALL, PAPER)[1:]
    ]
    return [*found, Entry("1 process, many slices", {}), untrained()]


def measure(outcomes: Outcomes) -> Json:
    linear, K = outcomes.linear, slices_each(outcomes.options)
    alone, most, many = "1 process", f"{outcomes.options.pick(SMALL, PAPER)[-1]} processes", "1 process, many slices"
    base = base_value(outcomes.options, "num_slices")
    claims = [
        points(
            f"{most} with K {K} each lose less than 1 point to 1 process with K {base} (linear)",
            linear[most],
            linear[many],
            MARGIN,
        ),
        points(f"{most} with K {K} each are above 1 process with K {K} (linear)", linear[most], linear[alone]),
    ]
    title = f"Processes, batch shared, K {K} each ({many}: K {base})"
    return outcomes.record(
        [outcomes.accuracy_table(title)], claims, worlds=list(outcomes.options.pick(SMALL, PAPER)), slices=K, many=base
    )


def draw(record: Json, folder: Path) -> list[str]:
    """ranks.png"""
    figure, (axis,) = figures.sheet(f"Accuracy against the number of processes, K {record['slices']} on each")
    worlds, values = record["worlds"], record["values"]["linear"]
    names = ["1 process", *(f"{world} processes" for world in worlds[1:])]
    rows = zip(*(values[name] for name in names), strict=True)
    figures.band(axis, worlds, [[100 * value for value in row] for row in rows], "visreg", "slices of its own on each")
    lines = {"1 process, many slices": (f"1 process, K {record['many']}", "--"), UNTRAINED: ("untrained", ":")}
    for name, (title, style) in lines.items():
        axis.axhline(100 * sum(values[name]) / len(values[name]), color=figures.GRAY, linestyle=style, label=title)
    axis.set_xscale("log", base=2)
    axis.set_xticks(worlds, map(str, worlds))
    axis.minorticks_off()
    axis.set(xlabel="processes", ylabel="linear accuracy, % (band: range over seeds)")
    axis.legend(frameon=False, fontsize=8, loc=(0.02, 0.72))
    return [figures.save(figure, folder / "ranks.png")]
