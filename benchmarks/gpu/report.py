# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What was measured on a GPU, as Markdown tables and one figure."""

from pathlib import Path
from typing import Any


def loss_table(found: dict) -> str:
    """Milliseconds (one call alone, until the device is done) and extra MB of each side, and the ratio to ours."""
    sides = list(dict.fromkeys(side for row in found["rows"] for side in row["sides"]))
    lines = [f"| B, D, K | {' | '.join(sides)} | lightly / ours |", "|---" * (len(sides) + 2) + "|"]
    for row in found["rows"]:
        cells = [cell(row["sides"].get(side)) for side in sides]
        case = ", ".join(str(row["case"][key]) for key in "BDK")
        ratio = row["sides"]["lightly"]["wall"] / row["sides"]["ours"]["wall"] if "lightly" in row["sides"] else 0
        lines.append(f"| {case} | {' | '.join(cells)} | {ratio:.1f} |")
    return "\n".join(lines)


def cell(timed: dict | None) -> str:
    """Milliseconds, and MB."""
    return "" if timed is None else f"{timed['wall']:.2f}, {timed['peak_mb']:.0f}"


def step_table(rows: list[dict], peak: float) -> str:
    """A line a side of a model."""
    columns = (
        "model | B | side | images/s | TFLOP/s | of the peak | ms on the device | host ms | launches | peak GB | "
        "first step, s"
    )
    lines = [f"| {columns} |", "|---" * (columns.count("|") + 1) + "|"]
    for row in rows:
        rate = row["images_per_second"]
        tflops = rate * row["flops_per_image"] / 1e12 if row["flops_per_image"] else 0
        lines.append(
            f"| {row['model']} | {row['B']} | {row['side']} | {rate:.0f} | {tflops:.0f} | {tflops / peak:.0%} | "
            f"{row['device']:.1f} | {row['host']:.1f} | {row['launches']} | {row['peak_mb'] / 1e3:.1f} | "
            f"{row['first_step_seconds']:.1f} |"
        )
    return "\n".join(lines)


def color_table(found: dict) -> str:
    """A line a batch size."""
    lines = ["| B | ms on the device | wall ms, alone | host ms | launches | extra MB |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {row['B']} | {row['device']:.2f} | {row['wall']:.2f} | {row['host']:.2f} | {row['launches']} | "
        f"{row['peak_mb']:.0f} |"
        for row in found["rows"]
    ]
    return "\n".join(lines)


def pretrain_table(runs: list[dict]) -> str:
    """A line a run."""
    lines = ["| B | images/s | waiting for data | memory GiB | first row after, s |", "|---|---|---|---|---|"]
    for run in runs:
        if "failed" in run:
            lines.append(f"| {run['B']} | failed: {run['failed'].splitlines()[-1]} | | | |")
            continue
        memory = (run["memory_mib"] or 0) / 1024
        lines.append(
            f"| {run['B']} | {run['images_per_second']:.0f} | {run['data_wait']:.1%} | {memory:.1f} | "
            f"{run['first_row_seconds']:.1f} ({run['steps_before_first_row']} steps) |"
        )
    return "\n".join(lines)


def feature_table(found: dict) -> str:
    """A line a side."""
    lines = ["| side | images/s | ms a batch |", "|---|---|---|"]
    for side, row in found["sides"].items():
        lines.append(f"| {side} | {row['images_per_second']:.0f} | {row['wall']:.1f} |")
    return "\n".join(lines)


def tables(found: dict[str, Any]) -> str:
    """Everything, with headings."""
    parts = [
        f"{found['card']}; {found['cores']} CPU cores; dense bf16 products peak at {found['peak_tflops']:.0f} TFLOP/s",
        "Objective, forward and backward, V 10: ms of one call alone, extra MB\n\n" + loss_table(found["losses"]),
        "Steps with ready-made views\n\n" + step_table(found["steps"], found["peak_tflops"]),
        "Colors of a batch\n\n" + color_table(found["coloring"]),
        "Features, bf16, batches of " + str(found["features"]["B"]) + "\n\n" + feature_table(found["features"]),
    ]
    if found["pretrain"]:
        parts.append("`visreg pretrain` on photos\n\n" + pretrain_table(found["pretrain"]))
    return "\n\n".join(parts)


def draw(found: dict[str, Any], path: Path) -> None:
    """Images a second of the steps, and milliseconds of the objective."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 4.5), constrained_layout=True)
    rows = found["steps"]
    names = [f"{row['model']}, B {row['B']}: {row['side']}" for row in rows]
    colors = ["tab:blue" if row["side"].startswith("ours") else "tab:gray" for row in rows]
    left.barh(names, [row["images_per_second"] for row in rows], color=colors)
    for number, row in enumerate(rows):
        left.text(row["images_per_second"], number, f" {row['images_per_second']:.0f}", va="center", fontsize=8)
    left.invert_yaxis()
    left.margins(x=0.12)
    left.set(xlabel="images a second", title="A step, 4 x 224 + 6 x 96 px, bf16")
    cases = [", ".join(str(row["case"][key]) for key in "BDK") for row in found["losses"]["rows"]]
    losses = found["losses"]["rows"]
    for side in dict.fromkeys(side for row in losses for side in row["sides"]):
        points = [(n, row["sides"][side]["wall"]) for n, row in enumerate(losses) if side in row["sides"]]
        right.semilogy(*zip(*points, strict=True), "o-", label=side)
    right.set_xticks(range(len(cases)), cases, rotation=20, fontsize=8)
    right.set(xlabel="B, D, K", ylabel="milliseconds, forward and backward", title="The objective, V 10")
    right.grid(alpha=0.3)
    right.legend(fontsize=8)
    figure.suptitle(found["card"])
    figure.savefig(path, dpi=110)
