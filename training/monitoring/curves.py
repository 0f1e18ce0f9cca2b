# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""curves.png: what a person would rather look at than metrics.jsonl."""

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..run_folder import Json, atomic_file


# Panel title -> the metrics drawn in it, with the names of its legend.
PANELS = {
    "total loss": {"total": "total"},
    "terms": {"invariance": "invariance", "center": "center", "scale": "scale", "shape": "shape"},
    "effective rank": {"projection_rank": "projections", "feature_rank": "features"},
    "online probes, accuracy": {
        "probe_linear": "linear, next batch",
        "probe_knn": "kNN, next batch",
        "held_out_linear": "linear, held out",
        "held_out_knn": "kNN, held out",
    },
    "gradient norm": {"grad_norm": "before clipping"},
    "images a second": {"images_per_second": "images/s"},
}
LOGARITHMIC = ("terms", "gradient norm")
FEW = 20  # points that are also marked: a line of one is none
COLORS = ("#1f5fa8", "#d1602b", "#3a8a4d", "#8c4fa3")


def draw_curves(rows: list[Json], path: Path, title: str = "") -> None:
    """Draw every panel of which `rows` (the lines of metrics.jsonl) hold something, into a PNG."""
    panels = [(name, series) for name, series in PANELS.items() if any(key in row for row in rows for key in series)]
    if not panels:
        return
    columns = min(3, len(panels))
    height = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(figure.subplots(height, columns, squeeze=False).flat)
    for axis, (name, series) in zip(axes, panels, strict=False):
        draw_panel(axis, rows, name, series)
    for axis in axes[len(panels) :]:
        axis.remove()
    if title:
        figure.suptitle(title)
    with atomic_file(path) as part:
        figure.savefig(part, dpi=110)


def draw_panel(axis, rows: list[Json], name: str, series: dict[str, str]) -> None:
    for color, (key, label) in zip(COLORS, series.items(), strict=False):
        points = [
            (row["epoch"] if "epoch" in row else row["step"], row[key]) for row in rows if row.get(key) is not None
        ]
        if points:
            marker = "o" if len(points) <= FEW else ""
            axis.plot(*zip(*points, strict=True), label=label, color=color, linewidth=1.6, marker=marker, markersize=3)
    if name in LOGARITHMIC:
        axis.set_yscale("log")
    axis.set_title(name, fontsize=10)
    axis.set_xlabel("epoch" if "epoch" in rows[-1] else "step", fontsize=9)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    if len(series) > 1:
        axis.legend(frameon=False, fontsize=8)
