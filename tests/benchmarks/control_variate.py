# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Noise of the shape gradient against the number of slices, with and without the control variate.

    python tests/benchmarks/control_variate.py --output tests/benchmarks/figures [--quick]

Noise is the variance of the gradient over draws of the directions, signal the squared length of its expectation, both
summed over entries. Three kinds of data: Gaussian; low-rank (rank D / 8, and a little noise); anisotropic (a spectrum
that falls like 1 / index). `beta 1` is what theory says for projections close to a Gaussian, `fitted` what the
objective does: beta from 64 fixed directions.

Shapes: x (1 view, B images, D dimension), standardised; directions (D, K slices).
"""

import argparse
from pathlib import Path

import torch

from visreg_training.objective import control_variate, sample_directions
from visreg_training.objective.ordered import sliced_gaussian_distance
from visreg_training.objective.terms import batch_statistics, standardize


def gaussian(batch: int, dim: int) -> torch.Tensor:
    return torch.randn(1, batch, dim)


def low_rank(batch: int, dim: int) -> torch.Tensor:
    return torch.randn(1, batch, dim // 8) @ torch.randn(dim // 8, dim) + 0.1 * torch.randn(1, batch, dim)


def anisotropic(batch: int, dim: int) -> torch.Tensor:
    rotation = torch.linalg.qr(torch.randn(dim, dim)).Q
    return torch.randn(1, batch, dim) / torch.arange(1, dim + 1) @ rotation


KINDS = {
    "Gaussian, B 256, D 256": lambda: gaussian(256, 256),
    "low-rank, B 256, D 256": lambda: low_rank(256, 256),
    "anisotropic, B 1024, D 64": lambda: anisotropic(1024, 64),
}
ESTIMATORS = ("off", "beta 1", "fitted")


def gradients(x: torch.Tensor, slices: int, draws: int) -> dict[str, torch.Tensor]:
    """Estimator -> gradient of shape in x for each draw of directions: (draws, B * D)."""
    rows = {name: [] for name in ESTIMATORS}
    covariance = x[0].T @ x[0] / x.shape[1]
    beta = control_variate.fit_beta(x[0], covariance, control_variate.expected_matrix(covariance))
    for _ in range(draws):
        directions = sample_directions(x.shape[2], slices)
        leaf = x.clone().requires_grad_()
        (published,) = torch.autograd.grad(sliced_gaussian_distance(leaf, directions), leaf)
        (correction,) = torch.autograd.grad(control_variate.control_variate_surrogate(leaf, directions), leaf)
        rows["off"].append(published.flatten())
        rows["fitted"].append((published + correction).flatten())
        rows["beta 1"].append((published + correction / beta).flatten())
    return {name: torch.stack(row) for name, row in rows.items()}


def measure(x: torch.Tensor, slices: int, draws: int) -> dict[str, float]:
    """Estimator -> noise / signal of one step's gradient."""
    drawn = gradients(x, slices, draws)
    noise = {name: got.var(0).sum().item() for name, got in drawn.items()}
    best = min(noise, key=noise.get)  # the estimators share their expectation: take it from the least noisy
    signal = drawn[best].mean(0).square().sum().item() - noise[best] / draws
    return {name: value / signal for name, value in noise.items()}


def plot(results: dict[str, dict[int, dict[str, float]]], path: Path) -> None:
    """Noise over signal against K, a panel for each kind of data."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(results), figsize=(13, 4), constrained_layout=True)
    for axis, (kind, by_slices) in zip(axes, results.items(), strict=True):
        for name in ESTIMATORS:
            axis.loglog(list(by_slices), [row[name] for row in by_slices.values()], "o-", label=name)
        axis.set(title=kind, xlabel="slices K", ylabel="noise / signal of the shape gradient")
    axes[0].legend(title="control variate")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for control_variate.png")
    parser.add_argument("--quick", action="store_true", help="few slices, few draws")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    all_slices, draws = ((32, 64), 8) if arguments.quick else ((64, 256, 1024, 4096), 24)
    results = {}
    print("| data | K | noise / signal, off | beta 1 | fitted | off / fitted |\n|---|---|---|---|---|---|")
    for kind, make in KINDS.items():
        x = standardize(batch_statistics(make()))
        results[kind] = {slices: measure(x, slices, draws) for slices in all_slices}
        for slices, row in results[kind].items():
            cells = " | ".join(f"{row[name]:.3f}" for name in ESTIMATORS)
            print(f"| {kind} | {slices} | {cells} | {row['off'] / row['fitted']:.2f} |", flush=True)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        plot(results, arguments.output / "control_variate.png")


if __name__ == "__main__":
    main()
