# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Figure 7: does the training loss alone rank checkpoints? Pearson correlation of loss and accuracy.

Within a run over its checkpoints (the loss is the mean since the last one), and over the ends of runs that differ in
learning rate and seed. The objective is the same in all of them, or their losses could not be compared.
"""

from pathlib import Path

import numpy as np

from ..run_folder import Json
from . import figures
from .comparison import Entry, Outcomes
from .options import AnalysisOptions
from .records import claim, number, spread, table
from .runs import base_value


FACTORS = (0.25, 1.0, 3.0)  # of the recipe's learning rate
PUBLISHED = -0.996  # paper, figure 7: ViT-L/14, 100 epochs, linear accuracy
TIGHT = -0.9


def entries(options: AnalysisOptions) -> list[Entry]:
    rate = base_value(options, "learning_rate")
    return [
        Entry(f"learning rate {rate * factor:g}", {} if factor == 1 else {"learning_rate": rate * factor})
        for factor in FACTORS
    ]


def measure(outcomes: Outcomes) -> Json:
    curves = {label: [curve(row) for row in rows] for label, rows in outcomes.results.items()}
    within = {
        name: [pearson(one["loss"], one[name]) for rows in curves.values() for one in rows]
        for name in ("linear", "knn")
    }
    ends = [{key: one[key][-1] for key in ("loss", "linear", "knn")} for rows in curves.values() for one in rows]
    across = {name: pearson([end["loss"] for end in ends], [end[name] for end in ends]) for name in ("linear", "knn")}
    claims = [
        below(
            "Within a run, a lower loss goes with a higher linear accuracy (Pearson below 0)", within["linear"], 0.0
        ),
        below(f"Within a run, as tightly as below {TIGHT} (paper: {PUBLISHED}; linear)", within["linear"], TIGHT),
        below(f"Within a run, as tightly as below {TIGHT} (20-NN)", within["knn"], TIGHT),
    ]
    rows = [
        [f"checkpoints of a run, {title}", *interval_cells(within[name]), f"{len(within[name])} runs"]
        for name, title in (("linear", "linear"), ("knn", "20-NN"))
    ]
    rows += [
        [f"ends of runs, {title}", number(across[name]), "", f"{len(ends)} runs"]
        for name, title in (("linear", "linear"), ("knn", "20-NN"))
    ]
    shown = table("Pearson correlation of training loss and accuracy", ["over", "r", "95 % interval", "of"], rows)
    return outcomes.record([shown], claims, curves=curves, within=within, across=across)


def curve(result: Json) -> dict[str, list[float]]:
    """Loss and accuracies at each evaluation of a run."""
    evaluations = result["evaluations"]
    found = {"step": [one["step"] for one in evaluations], "loss": [one["terms"]["total"] for one in evaluations]}
    return found | {name: [one[name] for one in evaluations] for name in ("linear", "knn")}


def pearson(x: list[float], y: list[float]) -> float:
    """0 where one of them does not vary."""
    return float(np.corrcoef(x, y)[0, 1]) if np.std(x) > 0 and np.std(y) > 0 else 0.0


def fisher(values: list[float]) -> list[float]:
    """Correlations on Fisher's scale, where an interval of Student's makes sense."""
    return np.arctanh(np.clip(values, -0.9999, 0.9999)).tolist()


def on_scale(values: list[float]) -> tuple[float, float, float]:
    """Mean and 95 % interval of correlations, taken on Fisher's scale."""
    found = spread(fisher(values))
    return tuple(float(np.tanh(value)) for value in (found["mean"], *(found["interval"] or (-np.inf, np.inf))))


def below(statement: str, values: list[float], bound: float) -> Json:
    """Whether correlations, one a run, lie below `bound`."""
    mean, low, high = on_scale(values)
    evidence = f"{number(mean)} [{number(low)}, {number(high)}]; bound: below {number(bound)}"
    return claim(statement, fisher(values), float(np.arctanh(bound)), below=True) | {"evidence": evidence}


def interval_cells(values: list[float]) -> list[str]:
    mean, low, high = on_scale(values)
    return [number(mean), f"{number(low)} to {number(high)}"]


def draw(record: Json, folder: Path) -> list[str]:
    """correlation.png"""
    within = record["within"]["linear"]
    message = f"Training loss against accuracy: r = {on_scale(within)[0]:.2f} within a run, on average"
    figure, (axis,) = figures.sheet(message)
    for (label, rows), color in zip(record["curves"].items(), ("#e0a020", "#1f5fa8", "#8c4fa3"), strict=False):
        for seed, one in enumerate(rows):
            accuracy = [100 * value for value in one["linear"]]
            axis.plot(one["loss"], accuracy, "-", color=color, alpha=0.35, linewidth=1)
            axis.plot(one["loss"], accuracy, "o", color=color, markersize=4, label=None if seed else label)
            axis.plot(one["loss"][-1], accuracy[-1], "D", color=color, markersize=8)
    axis.set(xlabel="training loss since the last checkpoint", ylabel="linear accuracy, %")
    axis.legend(frameon=False, fontsize=8, title="a line a run, its end a diamond", title_fontsize=8)
    return [figures.save(figure, folder / "correlation.png")]
