# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What the analyses that train have in common: entries (a label, and what it changes in the base run) times seeds."""

from dataclasses import dataclass
from typing import Any

from ..run_folder import Json
from . import figures
from .options import AnalysisOptions
from .records import FAILS, HOLDS, SHORT, percent, spread, table
from .runs import Training, base_recipe, training


UNTRAINED = "untrained"
MARGIN = 0.01  # accuracy: what counts as a loss where the paper says that something does no harm
# A verdict between trainings needs so many passes over the data, and one of them so far above the untrained model,
# with its whole interval: what a shorter one shows is how fast something starts.
FEWEST_EPOCHS = 10
LEFT_BEHIND = 0.05  # accuracy, linear
# lambda of the peers where each has its own: LeJEPA's for SIGReg, and for VICReg, whose 25 : 25 of variance and
# invariance is 1 : 25 for a regularizer that holds the 25. The others take the recipe's.
OWN_LAMBDA = {"sigreg": 0.05, "vicreg": 0.05}


@dataclass(frozen=True)
class Entry:
    """One line of a comparison: options that differ from the base run, by name; `color` of its regularizer."""

    label: str
    changes: Json
    regularizer: str = "visreg"

    def run(self, options: AnalysisOptions, seed: int) -> Training:
        return training(options, seed, **self.changes)

    @property
    def color(self) -> str:
        return figures.GRAY if self.label == UNTRAINED else figures.COLORS[self.regularizer]


def untrained(**changes: Any) -> Entry:
    """The model as it is initialized: what any accuracy has to be compared with."""
    return Entry(UNTRAINED, {"trained": False, **changes})


def trainings_of(options: AnalysisOptions, entries: list[Entry]) -> list[Training]:
    """A training for each entry and seed."""
    return [entry.run(options, seed) for entry in entries for seed in options.all_seeds]


class Outcomes:
    """The results of some entries: `linear["label"]` are accuracies on the test images (shares), one a seed."""

    def __init__(self, options: AnalysisOptions, entries: list[Entry], results: dict[str, Json]):
        self.options, self.entries = options, entries
        self.results = {
            entry.label: [results[entry.run(options, seed).key] for seed in options.all_seeds] for entry in entries
        }

    def values(self, name: str) -> dict[str, list[float]]:
        return {label: [row[name] for row in rows] for label, rows in self.results.items()}

    @property
    def linear(self) -> dict[str, list[float]]:
        return self.values("linear")

    @property
    def knn(self) -> dict[str, list[float]]:
        return self.values("knn")

    def record(self, tables: list[dict], claims: list[dict], **more: Any) -> Json:
        """The record of an analysis."""
        names = ("knn", "linear", "validation", "feature_rank")
        seconds = sum(row["seconds"] for rows in self.results.values() for row in rows)
        return {
            "settings": {"scale": self.options.scale, "base": base_recipe(self.options)},
            "seeds": list(self.options.all_seeds),
            "entries": [entry.label for entry in self.entries],
            "changes": {entry.label: entry.changes for entry in self.entries},
            "values": {name: self.values(name) for name in names},
            **more,
            "tables": tables,
            "claims": claims if self.long_enough() else [without_verdict(one) for one in claims],
            "seconds": seconds,
        }

    def long_enough(self) -> bool:
        """Whether verdicts between these trainings mean anything; results of before epochs were recorded: no."""
        trained = [row for label, rows in self.results.items() if label != UNTRAINED for row in rows]
        if any(row.get("epochs", 0) < FEWEST_EPOCHS for row in trained):
            return False
        if UNTRAINED not in self.results:
            return True
        floor = self.linear[UNTRAINED]
        gains = [
            spread(one - other for one, other in zip(values, floor, strict=True))
            for label, values in self.linear.items()
            if label != UNTRAINED
        ]
        return any(gain["interval"] is not None and gain["interval"][0] > LEFT_BEHIND for gain in gains)

    def accuracy_table(self, title: str) -> Json:
        """Mean and standard deviation over seeds of both accuracies, and the effective rank of the features."""
        ranks = self.values("feature_rank")
        rows = [
            [
                label,
                percent(self.knn[label]),
                percent(self.linear[label]),
                f"{sum(ranks[label]) / len(ranks[label]):.1f}",
            ]
            for label in self.results
        ]
        columns = ["", "20-NN, %", "linear, %", "effective rank of features"]
        return table(f"{title} ({len(self.options.all_seeds)} seeds; mean ± standard deviation)", columns, rows)


def without_verdict(claim: Json) -> Json:
    """A claim between trainings that are too short; that one is above the untrained model stays what it is."""
    settled = claim["verdict"] in (HOLDS, FAILS) and UNTRAINED not in claim["claim"]
    return {**claim, "verdict": SHORT} if settled else claim


def draw_entries(record: Json, message: str, path: Any, colors: dict[str, str] | None = None) -> list[str]:
    """Both accuracies of every entry, side by side."""
    labels = record["entries"]
    height = 1.6 + 0.36 * len(labels)
    figure, axes = figures.sheet(message, 2, height=height)
    picked = [(colors or {}).get(label, figures.COLORS["visreg"]) for label in labels]
    picked = [figures.GRAY if label == UNTRAINED else color for label, color in zip(labels, picked, strict=True)]
    for axis, name, label in ((axes[0], "linear", "linear accuracy, %"), (axes[1], "knn", "20-NN accuracy, %")):
        figures.dots(axis, labels, [record["values"][name][label] for label in labels], picked)
        axis.set_xlabel(f"{label} (diamond: mean; dots: seeds)")
    axes[1].set_yticklabels([])
    return [figures.save(figure, path)]
