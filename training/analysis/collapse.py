# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Figure 2: the gradient that each regularizer leaves a collapsing embedding; and the same as its rank is lowered.

Feature norm r: every row of z has length r. Its direction is drawn from a Gaussian, so the rows lie on a sphere about
the origin and sigma is about r / sqrt(D) in every dimension; `around a point` adds one unit vector to all rows.

Shapes: z (V views, B images, D dimension), directions (D, K slices).
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..objective import (
    REGULARIZERS,
    VISRegObjective,
    center_loss,
    effective_rank,
    sample_directions,
    scale_loss,
    shape_loss,
)
from ..run_folder import Json
from . import figures
from .options import AnalysisOptions
from .records import claim, number, spread, table


V, B, D, K = 2, 64, 512, 64  # paper, figure 2
RADII = tuple(10 ** (step / 4 - 5) for step in range(25))  # 1e-5 to 10 (paper, figure 2)
SMALL = 1e-4  # the feature norm at which the paper's figure is read here
RANKS = (63, 32, 16, 8, 4, 2, 1)  # 63: full, as B images are centered
CLIP = 1.0  # largest gradient norm of the recipes
STEP = 0.01  # length of the step that is tried at low rank, as a share of the length of z
SEEDS_AT_LEAST = 3  # draws cost nothing here


def measure(options: AnalysisOptions) -> Json:
    """Gradient norms over RADII and RANKS for each seed; some seconds on a CPU core."""
    started = time.perf_counter()
    seeds = list(range(max(SEEDS_AT_LEAST, len(options.all_seeds))))
    radii = {seed: [gradient_norms(sphere(radius, seed), seed) for radius in RADII] for seed in seeds}
    around = [apart_norms(sphere(SMALL, seed) + point(seed), seed) for seed in seeds]
    ranks = {seed: [rank_measures(rank, seed) for rank in RANKS] for seed in seeds}
    series = {name: [[row[name] for row in radii[seed]] for seed in seeds] for name in radii[0][0]}
    by_rank = {name: [[row[name] for row in ranks[seed]] for seed in seeds] for name in ranks[0][0]}
    return {
        "settings": settings(options),
        "seeds": seeds,
        "radii": list(RADII),
        "gradient_norm": series,
        "ranks": list(RANKS),
        "by_rank": by_rank,
        "tables": [norm_table(series), clip_table(series), rank_table(by_rank)],
        "claims": claims(series, around, by_rank),
        "seconds": time.perf_counter() - started,
    }


def settings(options: AnalysisOptions) -> Json:
    """What the result depends on."""
    return {"views": V, "images": B, "dimension": D, "slices": K, "draws": max(SEEDS_AT_LEAST, len(options.all_seeds))}


def functions() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Every regularizer as the loop uses it, and the three terms of VISReg apart: f(z, directions)."""
    found: dict[str, Callable[[Tensor, Tensor], Tensor]] = {}
    for name in REGULARIZERS:
        objective = VISRegObjective(K, 1.0, regularizer=name)
        found[name] = lambda z, directions, objective=objective: objective(z, V, directions).total
    found["scale"] = lambda z, directions: scale_loss(z)
    found["shape"] = shape_loss
    found["center"] = lambda z, directions: center_loss(z)
    return found


def sphere(radius: float, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """z (V, B, D) whose rows have length `radius`."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(V, B, D, generator=generator, dtype=torch.float64)
    return (radius * z / z.norm(dim=2, keepdim=True)).to(dtype)


def point(seed: int) -> Tensor:
    """A unit vector (D,)."""
    return sample_directions(D, 1, torch.Generator().manual_seed(1000 + seed))[:, 0]


def gradients(z: Tensor, seed: int) -> dict[str, Tensor]:
    """The gradient in z (V, B, D) of everything in `functions`."""
    directions = sample_directions(D, K, torch.Generator().manual_seed(2000 + seed), dtype=torch.float64).to(z.dtype)
    found = {}
    for name, function in functions().items():
        leaf = z.clone().requires_grad_()
        (found[name],) = torch.autograd.grad(function(leaf, directions), leaf)
    return found


def gradient_norms(z: Tensor, seed: int) -> dict[str, float]:
    return {name: gradient.norm().item() for name, gradient in gradients(z, seed).items()}


def apart_norms(z: Tensor, seed: int) -> dict[str, float]:
    """Norms of that part of the gradients which moves the images of a view apart, and not all of them alike."""
    return {name: (g - g.mean(1, keepdim=True)).norm().item() for name, g in gradients(z, seed).items()}


def rank_measures(rank: int, seed: int) -> dict[str, float]:
    """Gradient norms where the rows of z, standard deviation 1, span `rank` dimensions; and what a step does to it.

    `singular_<i>`: singular values of z, the first view, as shares of the largest; `opened_<name>`: the first singular
    value beyond the span after a step of STEP against the gradient, as a share of the largest.
    """
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(D, rank, generator=generator, dtype=torch.float64)).Q.T
    z = torch.randn(V, B, rank, generator=generator, dtype=torch.float64) @ axes
    z = z - z.mean(1, keepdim=True)  # a moved mean would count as a direction of its own
    z = z * (V * B * D) ** 0.5 / z.norm()
    found = gradients(z, seed)
    measures = {name: gradient.norm().item() for name, gradient in found.items()}
    measures["effective_rank"] = effective_rank(z[0]).item()
    singular = torch.linalg.svdvals(z[0])
    measures["smallest_singular"] = (singular[rank - 1] / singular[0]).item()
    for name, gradient in found.items():
        stepped = z - STEP * z.norm() / gradient.norm() * gradient
        after = torch.linalg.svdvals(stepped[0] - stepped[0].mean(0))
        measures[f"opened_{name}"] = (after[rank] / after[0]).item()
    return measures


def at(series: dict[str, list[list[float]]], name: str, radius: float) -> list[float]:
    """The norms of a seed each at one feature norm."""
    column = int(np.argmin([abs(np.log(one / radius)) for one in RADII]))
    return [row[column] for row in series[name]]


def slope(series: dict[str, list[list[float]]], name: str, low: float, high: float) -> list[float]:
    """Exponent of the gradient norm in r between two feature norms, a seed each."""
    pairs = zip(at(series, name, low), at(series, name, high), strict=True)
    return [float(np.log(end / start) / np.log(high / low)) for start, end in pairs]


def claims(series: dict, around: list[dict[str, float]], by_rank: dict) -> list[dict]:
    def ratio(other: str, found: dict) -> list[float]:
        return [a / b for a, b in zip(at(found, "visreg", SMALL), at(found, other, SMALL), strict=True)]

    constant = [row[0] / row[8] - 1 for row in series["scale"]]  # RADII[8] = 1e-3
    off_point = [row["visreg"] / row["sigreg"] for row in around]
    scale_share = [a / b for a, b in zip(at(series, "scale", SMALL), at(series, "visreg", SMALL), strict=True)]
    return [
        claim(
            "At feature norm 1e-4 the gradient of VISReg is above 10^6 times SIGReg's", ratio("sigreg", series), 1e6
        ),
        claim(
            "At feature norm 1e-4 the gradient of VISReg is above 10^3 times VICReg's", ratio("vicreg", series), 1e3
        ),
        claim(
            "It is above 10^6 times SIGReg's also around a point of norm 1 (the part that moves images apart)",
            off_point,
            1e6,
        ),
        claim(
            "Barlow Twins keeps a gradient as strong as VISReg's at 1e-4", [1 / x for x in ratio("barlow", series)], 1
        ),
        claim(
            "The gradient of scale tends to a constant: it changes by less than 1 % from 1e-3 to 1e-5",
            [abs(change) for change in constant],
            0.01,
            below=True,
        ),
        claim(
            "The gradient of shape grows like 1/sigma: its exponent in r from 1e-2 to 1e-3 is within 0.05 of -1",
            [abs(found + 1) for found in slope(series, "shape", 1e-3, 1e-2)],
            0.05,
            below=True,
        ),
        claim(
            "It is the scale term that keeps VISReg's gradient alive: at 1e-4 it makes more than half of it",
            scale_share,
            0.5,
        ),
        claim(
            "At rank 4 one step of 1 % along VISReg opens a fifth direction, above 10^-3 of the first (VICReg: none)",
            [row[RANKS.index(4)] for row in by_rank["opened_visreg"]],
            1e-3,
        ),
    ]


def norm_table(series: dict) -> Json:
    shown = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
    names = {**figures.TITLES, "scale": "scale term", "shape": "shape term", "center": "center term"}
    rows = [
        [title, *(number(float(np.mean(at(series, name, radius)))) for radius in shown)]
        for name, title in names.items()
    ]
    return table("Norm of the gradient in z, mean over draws", ["feature norm r", *map(number, shown)], rows)


def clip_table(series: dict) -> Json:
    """What clipping leaves of the gradient: its length, and that of the scale term's part in it."""
    rows = []
    for name, title in figures.TITLES.items():
        norm = float(np.mean(at(series, name, SMALL)))
        factor = min(1.0, CLIP / norm)
        part = number(factor * float(np.mean(at(series, "scale", SMALL)))) if name == "visreg" else ""
        rows.append([title, number(norm), number(norm * factor), part])
    columns = ["at feature norm 1e-4", "gradient norm", f"clipped at {CLIP:g}", "of it, the scale term's"]
    return table("What gradient clipping leaves", columns, rows)


def rank_table(by_rank: dict) -> Json:
    keys = {
        "effective_rank": "effective rank of a view",
        "smallest_singular": "smallest singular value in the span / largest",
        "scale": "gradient norm: scale",
        "shape": "gradient norm: shape",
        "center": "gradient norm: center",
        **{name: f"gradient norm: {title}" for name, title in figures.TITLES.items()},
        **{f"opened_{name}": f"opened by a step: {title}" for name, title in figures.TITLES.items()},
        "opened_scale": "opened by a step: scale",
        "opened_shape": "opened by a step: shape",
    }
    rows = []
    for key, title in keys.items():
        means = [spread(column)["mean"] for column in zip(*by_rank[key], strict=True)]
        rows.append([title, *("0" if abs(mean) < 1e-9 else number(mean) for mean in means)])
    title = (
        f"Rank lowered step by step (standard deviation 1; opened: first singular value beyond the span after a "
        f"step of {STEP:.0%} of the length of z, as a share of the largest)"
    )
    return table(title, ["rank of z", *map(str, RANKS)], rows)


def draw(record: Json, folder: Path) -> list[str]:
    """collapse.png (norm against r; terms and clipping) and collapse_rank.png."""
    return [draw_norms(record, folder / "collapse.png"), draw_ranks(record, folder / "collapse_rank.png")]


def draw_norms(record: Json, path: Path) -> str:
    figure, (left, right) = figures.sheet(
        "As features shrink, VISReg's gradient grows through its shape term; SIGReg's vanishes", 2
    )
    series, radii = record["gradient_norm"], record["radii"]
    for name in figures.TITLES:
        figures.band(left, radii, series[name], name, markersize=3)
    for name, color in (("shape", "#1f5fa8"), ("scale", "#e0a020"), ("center", figures.GRAY)):
        figures.band(right, radii, series[name], "visreg", f"{name} term", color=color, markersize=3)
    right.axhline(CLIP, color="black", linestyle="--", linewidth=1)
    right.annotate("clipping of the recipes: 1.0", (1e-5, CLIP), (0, -11), textcoords="offset points", fontsize=8)
    for axis, title in ((left, "five regularizers"), (right, "the terms of VISReg")):
        axis.set(xscale="log", yscale="log", xlabel="feature norm r", ylabel="norm of the gradient in z", title=title)
        axis.legend(frameon=False, fontsize=8)
    return figures.save(figure, path)


def draw_ranks(record: Json, path: Path) -> str:
    figure, (left, right) = figures.sheet("At low rank VICReg and the scale term open no new direction; shape does", 2)
    series, ranks = record["by_rank"], record["ranks"]
    for name, color in (("shape", "#1f5fa8"), ("scale", "#e0a020")):
        figures.band(left, ranks, series[name], "visreg", f"{name} term", color=color)
    lowered = ranks[1:]
    for name in figures.TITLES:
        figures.band(right, lowered, [row[1:] for row in series[f"opened_{name}"]], name)
    scale = [row[1:] for row in series["opened_scale"]]
    figures.band(right, lowered, scale, "visreg", "scale term alone", color="#e0a020", linestyle="--", marker="x")
    left.set(title="gradient of the terms of VISReg", ylabel="norm of the gradient in z", yscale="log")
    right.set(title=f"after a step of {STEP:.0%}", ylabel="first singular value beyond the span / largest")
    for axis, shown in ((left, ranks), (right, lowered)):
        axis.set_xscale("log", base=2)
        axis.set_xticks(shown, map(str, shown))
        axis.minorticks_off()
        axis.invert_xaxis()
        axis.set_xlabel("rank of z")
        axis.legend(frameon=False, fontsize=8)
    return figures.save(figure, path)
