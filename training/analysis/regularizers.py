# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The comparison: five regularizers with the same model, views, steps and seeds; only the regularizer changes.

At the paper's lambda for small data, and at LeJEPA's: a regularizer has a scale of its own, so one lambda suits one of
them. Which lambda is a regularizer's better one is decided on validation images.
"""

from pathlib import Path

from ..objective import REGULARIZERS
from ..run_folder import Json
from . import figures
from .comparison import UNTRAINED, Entry, Outcomes, draw_entries, untrained
from .options import AnalysisOptions
from .records import points, table
from .runs import base_value


OTHER_LAMBDA = 0.05  # LeJEPA (arXiv 2511.08544)


def lambdas(options: AnalysisOptions) -> tuple[float, float]:
    return base_value(options, "regularization_weight"), OTHER_LAMBDA


def label(name: str, weight: float) -> str:
    return f"{figures.TITLES[name]}, λ {weight:g}"


def entries(options: AnalysisOptions) -> list[Entry]:
    base = lambdas(options)[0]
    found = []
    for name in REGULARIZERS:
        for weight in lambdas(options):
            changes = {"regularizer": None if name == "visreg" else name}
            changes["regularization_weight"] = None if weight == base else weight
            found.append(Entry(label(name, weight), changes, name))
    return [*found, untrained()]


def measure(outcomes: Outcomes) -> Json:
    linear, knn, base = outcomes.linear, outcomes.knn, lambdas(outcomes.options)[0]
    chosen = {name: better_lambda(outcomes, name, lambdas(outcomes.options)) for name in REGULARIZERS}
    ours = figures.TITLES["visreg"]
    claims = [
        points(
            "VISReg learns: its linear accuracy is above the untrained model's",
            linear[label("visreg", base)],
            linear[UNTRAINED],
        )
    ]
    for name in REGULARIZERS[1:]:
        title = figures.TITLES[name]
        mine, theirs = label("visreg", base), label(name, base)
        claims.append(points(f"At λ {base:g}, {ours} is above {title} (linear)", linear[mine], linear[theirs]))
    for name in REGULARIZERS[1:]:
        title = figures.TITLES[name]
        mine, theirs = label("visreg", chosen["visreg"]), label(name, chosen[name])
        statement = f"Each at its better λ, {ours} is above {title}"
        claims.append(points(f"{statement} (linear)", linear[mine], linear[theirs]))
        claims.append(points(f"{statement} (20-NN)", knn[mine], knn[theirs]))
    picked = [[figures.TITLES[name], f"{weight:g}"] for name, weight in chosen.items()]
    tables = [
        outcomes.accuracy_table("Five regularizers, everything else equal"),
        table("λ chosen on validation images, of the two", ["regularizer", "λ"], picked),
    ]
    return outcomes.record(tables, claims, chosen=chosen)


def better_lambda(outcomes: Outcomes, name: str, weights: tuple[float, float]) -> float:
    validation = outcomes.values("validation")
    return max(weights, key=lambda weight: sum(validation[label(name, weight)]))


def draw(record: Json, folder: Path) -> list[str]:
    """regularizers.png"""
    colors = {
        one: figures.COLORS[name]
        for one in record["entries"]
        for name in REGULARIZERS
        if one.startswith(f"{figures.TITLES[name]},")
    }
    return draw_entries(record, "Only the regularizer and its weight λ change", folder / "regularizers.png", colors)
