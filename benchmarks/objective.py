# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Time and memory of the objective, forward and backward, beside its peers and the arithmetic floor.

    python -m benchmarks.objective --output benchmarks/figures [--quick]

Each side runs in a process of its own on the same inputs (V 10 views, 4 of them global). Extra peak memory is taken at
the first call at full size, after a warm-up at a small one; time is the median of several calls after that. The floor
is what no implementation that multiplies and sorts can go below here: two matrix products and NumPy's sort of the
values (without their positions), on all cores, chunk by chunk in cache.

Shapes: z (V views, B images, D dimension), directions (D, K slices).
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path

from .measuring import add_measure, in_fresh_process, machine


NUM_GLOBAL, VIEWS = 4, 10
BASE = {"B": 512, "D": 256, "K": 4096}
CASES = [
    BASE,
    *({**BASE, "K": slices} for slices in (1024, 16384)),
    *({**BASE, "B": batch} for batch in (128, 1024)),
    *({**BASE, "D": dim} for dim in (64, 1024)),
]
QUICK = [{"B": 64, "D": 32, "K": 256}, {"B": 128, "D": 32, "K": 256}]
SIDES = (
    "ours",
    "lightly",
    "plain",
    "SIGReg (ours)",
    "SIGReg (plain)",
    "floor",
    "floor, argsort",
)
PLAIN_SIGREG_LIMIT = 1 << 29  # V * B * K * 17 numbers: it keeps about six times that in memory


def build(side: str, slices: int):
    """A function of z (V, B, D) that gives the total of a side."""
    import torch

    from visreg_training.objective import VISRegObjective, invariance_loss, sample_directions

    if side == "lightly":
        from lightly.loss import VISRegLoss

        peer = VISRegLoss(num_slices=slices)
        return lambda z: peer(local_proj=z[NUM_GLOBAL:], global_proj=z[:NUM_GLOBAL])
    if side in ("plain", "SIGReg (plain)"):
        from . import plain

        def total(z: torch.Tensor) -> torch.Tensor:
            directions = sample_directions(z.shape[2], slices)
            if side == "plain":
                regularizer = plain.scale(z) + plain.shape(z, directions) + z.mean(1).square().mean()
            else:
                regularizer = plain.sigreg(z, directions)
            return 0.9 * regularizer + 0.1 * invariance_loss(z, NUM_GLOBAL)

        return total
    objective = VISRegObjective(slices, regularizer="sigreg" if "SIG" in side else "visreg")
    return lambda z: objective(z, NUM_GLOBAL).total


def floor(z, slices: int, permutation: bool = False) -> None:
    """Two products and one sort (or argsort) of every projection, by the pool of threads that the kernel uses."""
    import numpy
    import torch

    from visreg_training.objective.kernels.cpu import run_split

    _, batch, dim = z.shape
    directions = torch.randn(slices, dim)
    rows = min(slices, max(8, (1 << 17) // batch))

    def run(pairs: range) -> None:
        buffer, gradient = torch.empty(rows, batch), torch.zeros(batch, dim)
        for pair in pairs:
            start = pair % (slices // rows) * rows
            part = directions[start : start + rows]
            torch.mm(part, z[pair // (slices // rows)].T, out=buffer)
            if permutation:
                numpy.argsort(buffer.numpy(), axis=-1)
            else:
                buffer.numpy().sort(axis=-1)
            gradient.addmm_(buffer.T, part)

    run_split(run, len(z) * (slices // rows))


def measure(side: str, case: dict, repeats: int) -> dict:
    """Seconds and extra peak bytes of one side; runs in a process of its own."""
    import torch

    from visreg_training.analysis.memory import extra_peak

    torch.manual_seed(0)
    z = torch.randn(VIEWS, case["B"], case["D"])
    bottom = side.startswith("floor")
    if bottom:

        def call(z: torch.Tensor) -> None:
            with torch.no_grad():
                floor(z, case["K"], permutation="argsort" in side)
    else:
        total = build(side, case["K"])

        def call(z: torch.Tensor) -> None:
            leaf = z.detach().requires_grad_()
            total(leaf).backward()

    call(z[:, :2, :].contiguous()) if bottom else build(side, 8)(
        torch.randn(VIEWS, 8, 8, requires_grad=True)
    ).backward()
    peak = extra_peak(lambda: call(z), z.device)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call(z)
        seconds.append(time.perf_counter() - start)
    return {"seconds": statistics.median(seconds), "best": min(seconds), "peak": peak}


def sides_of(case: dict) -> list[str]:
    """The sides that fit: plain SIGReg keeps V * B * K * 17 numbers several times."""
    small = VIEWS * case["B"] * case["K"] * 17 <= PLAIN_SIGREG_LIMIT
    return [side for side in SIDES if small or side != "SIGReg (plain)"]


def table(rows: list[dict]) -> str:
    """Markdown: a line a case and side; ratios are side / ours, but for ours, which is compared with the floor."""
    lines = [
        "| B | D | K | side | seconds | best | extra peak MB | time / ours | memory / ours | time / floor |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, bottom = row["sides"]["ours"], row["sides"]["floor"]
        for side, got in row["sides"].items():
            ratios = (got["seconds"] / ours["seconds"], got["peak"] / max(ours["peak"], 1))
            relative = " | ".join(f"{ratio:.2f}" for ratio in (*ratios, got["seconds"] / bottom["seconds"]))
            case = " | ".join(str(row["case"][key]) for key in "BDK")
            cells = f"{got['seconds']:.3f} | {got['best']:.3f} | {got['peak'] / 1e6:.0f}"
            lines.append(f"| {case} | {side} | {cells} | {relative} |")
    return "\n".join(lines)


def plot(rows: list[dict], folder: Path) -> Path:
    """Time above, memory below, against B, D and K around the base case."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 3, figsize=(13, 7), constrained_layout=True)
    for column, key in enumerate("BDK"):
        chosen = [row for row in rows if all(row["case"][k] == rows[0]["case"][k] for k in "BDK" if k != key)]
        chosen.sort(key=lambda row: row["case"][key])
        for side in SIDES:
            points = [(row["case"][key], row["sides"][side]) for row in chosen if side in row["sides"]]
            if not points:
                continue
            xs = [x for x, _ in points]
            axes[0, column].loglog(xs, [got["seconds"] for _, got in points], "o-", label=side)
            axes[1, column].loglog(xs, [max(got["peak"], 1) / 1e6 for _, got in points], "o-", label=side)
        axes[0, column].set(xlabel=key, ylabel="seconds, forward and backward")
        axes[1, column].set(xlabel=key, ylabel="extra peak memory, MB")
        values = [row["case"][key] for row in chosen]
        for axis in axes[:, column]:
            axis.set_xticks(values, map(str, values))
            axis.set_xticks([], minor=True)
            axis.grid(alpha=0.3)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SIDES), frameon=False)
    base = ", ".join(f"{key} {rows[0]['case'][key]}" for key in "BDK")
    figure.suptitle(f"The objective around V {VIEWS}, {base}, float32, {os.cpu_count()} CPU cores")
    path = folder / "objective.png"
    figure.savefig(path, dpi=110)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="folder for objective.md and objective.png")
    parser.add_argument("--quick", action="store_true", help="two small cases, to see that everything runs")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls a side")
    add_measure(parser)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    conditions = machine()
    print(f"{conditions}\n", flush=True)
    rows = []
    for case in QUICK if arguments.quick else CASES:
        sides = {side: in_fresh_process("objective", side, case, arguments.repeats) for side in sides_of(case)}
        rows.append({"case": case, "sides": sides})
        print(table(rows[-1:]), flush=True)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "objective.md").write_text(f"{conditions}\n\n{table(rows)}\n")
        print(plot(rows, arguments.output))


if __name__ == "__main__":
    main()
