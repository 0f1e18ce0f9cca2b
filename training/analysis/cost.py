# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Figure 3: time and memory of each regularizer, forward and backward, against batch and dimension.

Shapes: z (V views, B images, D dimension), directions (D, K slices).
"""

import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from matplotlib import ticker
from tqdm import tqdm

from ..objective import sample_directions
from ..objective.regularizers import TABLE
from ..run_folder import Json
from . import figures
from .memory import extra_peak
from .options import AnalysisOptions
from .records import claim, number, table


SMALL = {"V": 4, "K": 1024, "B": 256, "D": 256, "batches": (128, 256, 512, 1024, 2048)}
SMALL |= {"dims": (64, 128, 256, 512, 1024, 2048)}
PAPER = {"V": 10, "K": 4096, "B": 512, "D": 256, "batches": (128, 256, 512, 1024, 2048, 4096)}
PAPER |= {"dims": (64, 128, 256, 512, 1024, 2048, 4096)}
REPEATS = 5  # timings of a case, as many estimates of the exponent; each is the fastest of
CALLS = 3  # calls


def settings(options: AnalysisOptions) -> Json:
    """What the result depends on; the number of threads and the device are part of it."""
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else torch.device("cpu")
    sizes = options.pick(SMALL, PAPER)
    listed = {key: list(value) if isinstance(value, tuple) else value for key, value in sizes.items()}
    return listed | {"device": device.type, "threads": torch.get_num_threads(), "repeats": REPEATS, "calls": CALLS}


def measure(options: AnalysisOptions) -> Json:
    """Median seconds and extra peak bytes of every regularizer; cases are visited in turn, repeat after repeat."""
    started, sizes = time.perf_counter(), settings(options)
    device = torch.device(sizes["device"])
    cases = dict.fromkeys([(B, sizes["D"]) for B in sizes["batches"]] + [(sizes["B"], D) for D in sizes["dims"]])
    rows = []
    with tqdm(total=len(cases) * len(TABLE), unit="case", desc="cost", disable=not sys.stderr.isatty()) as bar:
        for B, D in cases:
            for name in TABLE:
                rows.append({"regularizer": name, "B": B, "D": D, **one_case(name, sizes, B, D, device)})
                bar.update()
    return {
        "settings": sizes,
        "seeds": list(range(REPEATS)),
        "rows": rows,
        "tables": [case_table(rows, "seconds", 1e3, "Milliseconds a call (median)")]
        + ([case_table(rows, "peak", 2**-20, "Extra peak memory, MiB")] if rows[0]["peak"] is not None else []),
        "claims": claims(rows, sizes),
        "seconds": time.perf_counter() - started,
    }


def one_case(name: str, sizes: Json, B: int, D: int, device: torch.device) -> Json:
    """Seconds of each repeat and the extra peak of the first call; fresh directions are part of a sliced one."""
    z = torch.randn(sizes["V"], B, D, generator=torch.Generator().manual_seed(0)).to(device)

    loss, sliced = TABLE[name].load(), TABLE[name].takes_directions

    def call(z: torch.Tensor = z) -> None:
        directions = sample_directions(z.shape[2], sizes["K"], device=device) if sliced else None
        loss(z.detach().requires_grad_(), directions).backward()

    call(z[:, :8, :8].contiguous())  # threads and kernels are there when memory is looked at
    peak = extra_peak(call, device)
    seconds = [min(timed(call, device) for _ in range(sizes["calls"])) for _ in range(sizes["repeats"])]
    return {"seconds": seconds, "peak": peak}


def timed(call, device: torch.device) -> float:
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - start


def along(rows: list[dict], name: str, axis: str, sizes: Json) -> list[dict]:
    """The rows of a regularizer along B or D, the other at its base."""
    other = "D" if axis == "B" else "B"
    chosen = [row for row in rows if row["regularizer"] == name and row[other] == sizes[other]]
    return sorted(chosen, key=lambda row: row[axis])


def exponents(rows: list[dict], name: str, axis: str, sizes: Json) -> list[float]:
    """Exponent of time in B or D from each repeat: a line through the logarithms of the upper three sizes."""
    upper = along(rows, name, axis, sizes)[-3:]
    x = np.log([row[axis] for row in upper])
    return [float(np.polyfit(x, np.log(y), 1)[0]) for y in zip(*(row["seconds"] for row in upper), strict=True)]


def claims(rows: list[dict], sizes: Json) -> list[dict]:
    found = [
        claim(
            f"Time of {title} is linear in the batch: exponent below 1.25 (1 plus a sort's logarithm)",
            exponents(rows, name, "B", sizes),
            1.25,
            below=True,
        )
        for name, title in figures.TITLES.items()
    ]
    statement = "Time of VISReg is at most linear in the dimension: exponent below 1.25"
    found.append(claim(statement, exponents(rows, "visreg", "D", sizes), 1.25, below=True))
    found += [
        claim(
            f"Time of {figures.TITLES[name]} grows faster than linearly in the dimension: exponent above 1.25",
            exponents(rows, name, "D", sizes),
            1.25,
        )
        for name in ("vicreg", "barlow")
    ]
    largest = {name: along(rows, name, "B", sizes)[-1]["seconds"] for name in TABLE}
    ratio = [a / b for a, b in zip(largest["sigreg"], largest["visreg"], strict=True)]
    return [*found, claim("VISReg is faster than SIGReg at the largest batch (SIGReg's time / VISReg's)", ratio, 1.0)]


def case_table(rows: list[dict], key: str, factor: float, title: str) -> Json:
    cases = list(dict.fromkeys((row["B"], row["D"]) for row in rows))
    found = {(row["regularizer"], row["B"], row["D"]): row[key] for row in rows}

    def cell(name: str, case: tuple[int, int]) -> str:
        value = found[(name, *case)]
        return number(factor * (statistics.median(value) if isinstance(value, list) else value))

    body = [[str(B), str(D), *(cell(name, (B, D)) for name in figures.TITLES)] for B, D in cases]
    return table(title, ["B", "D", *figures.TITLES.values()], body)


def message(rows: list[dict], sizes: Json) -> str:
    """What doubling either size does, from the fitted exponents."""

    def factor(name: str, axis: str) -> str:
        return f"{2 ** float(np.mean(exponents(rows, name, axis, sizes))):.1f}"

    batch, dim = factor("visreg", "B"), factor("visreg", "D")
    return f"Twice the batch: VISReg {batch} x slower; twice the dimension: {dim} x, VICReg {factor('vicreg', 'D')} x"


def draw(record: Json, folder: Path) -> list[str]:
    """cost.png: time against B and D; memory against B where it could be counted."""
    sizes, rows = record["settings"], record["rows"]
    with_memory = rows[0]["peak"] is not None
    figure, axes = figures.sheet(message(rows, sizes), 2 + with_memory)
    panels = [(axes[0], "B", "seconds", 1e3), (axes[1], "D", "seconds", 1e3)]
    panels += [(axes[2], "B", "peak", 2**-20)] if with_memory else []
    for axis, along_axis, key, factor in panels:
        for name, title in figures.TITLES.items():
            chosen = along(rows, name, along_axis, sizes)
            y = [
                factor * (statistics.median(row[key]) if key == "seconds" else max(row[key], 2**16)) for row in chosen
            ]
            look = {"color": figures.COLORS[name], "marker": figures.MARKERS[name], "markersize": 4}
            axis.plot([row[along_axis] for row in chosen], y, label=title, **look)
        ticks = [row[along_axis] for row in along(rows, "visreg", along_axis, sizes)]
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(ticks, map(str, ticks))
        name = {"B": "batch B", "D": "dimension D"}[along_axis]
        fixed = "D" if along_axis == "B" else "B"
        axis.set_xlabel(f"{name} ({fixed} {sizes[fixed]}, V {sizes['V']}, K {sizes['K']})")
        axis.set_ylabel("ms, forward and backward" if key == "seconds" else "extra peak memory, MiB")
    for axis in axes:  # less than two decades: powers of ten say too little
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(ticker.NullLocator())
    axes[0].legend(frameon=False, fontsize=8)
    return [figures.save(figure, folder / "cost.png")]
