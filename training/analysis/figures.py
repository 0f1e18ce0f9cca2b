# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The look of every figure: one size of type, one color a regularizer, one sentence above."""

import itertools
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..objective.regularizers import TABLE
from ..run_folder import atomic_file


TITLES = {name: regularizer.title for name, regularizer in TABLE.items()}
PALETTE = ("#1f5fa8", "#d1602b", "#3a8a4d", "#8c4fa3", "#7a6a4f", "#2a9aa0", "#b8902c", "#444444")
COLORS = dict(zip(TABLE, itertools.cycle(PALETTE), strict=False))
MARKERS = dict(zip(TABLE, itertools.cycle("os^Dv<>P"), strict=False))
GRAY = "#777777"


def sheet(message: str, columns: int = 1, width: float = 6.4, height: float = 4.2) -> tuple[Figure, list]:
    """A figure with `columns` panels side by side and its message above; returns it and its axes."""
    figure = Figure(figsize=(width if columns == 1 else 4.9 * columns, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(1, columns, squeeze=False).flat)
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(message, fontsize=11)
    return figure, axes


def save(figure: Figure, path: Path) -> str:
    """Write a PNG, whole or not at all; returns its name."""
    with atomic_file(path) as part:
        figure.savefig(part, dpi=120)
    return path.name


def band(axis, x, rows: list[list[float]], key: str, label: str | None = None, **style: Any) -> None:
    """Mean of `rows` (one a seed) against x, the range over seeds shaded; `key` is a regularizer."""
    columns = list(zip(*rows, strict=True))
    mean = [sum(column) / len(column) for column in columns]
    look = {"color": COLORS[key], "marker": MARKERS[key], "markersize": 4, "linewidth": 1.6} | style
    axis.plot(x, mean, label=label or TITLES[key], **look)
    axis.fill_between(
        x, list(map(min, columns)), list(map(max, columns)), color=look["color"], alpha=0.15, linewidth=0
    )


def dots(axis, labels: list[str], groups: list[list[float]], colors: list[str]) -> None:
    """A line an entry: the mean of its values (shares, in percent) large, each seed small, the range as a bar."""
    for row, (group, color) in enumerate(zip(groups, colors, strict=True)):
        values = [100 * value for value in group]
        axis.plot([min(values), max(values)], [row, row], color=color, linewidth=5, alpha=0.25)
        axis.plot(values, [row] * len(values), "o", color=color, markersize=4, alpha=0.7)
        mean = sum(values) / len(values)
        axis.plot(mean, row, "D", color=color, markersize=8)
        axis.annotate(f"{mean:.1f}", (mean, row), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.5, -0.7)
    axis.margins(x=0.08)
