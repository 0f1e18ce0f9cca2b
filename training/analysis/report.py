# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""report.md: every record of a folder as figures, tables and verdicts; what holds comes from the records alone."""

from pathlib import Path

from ..evaluation.reports.results import markdown
from ..progress import clock
from ..run_folder import Json, read_json, write_text
from .options import ANALYSES
from .records import FAILS, FORMAT, HOLDS, OPEN, SHORT


HEAD = """# What holds of the paper's claims here

Each verdict is computed from numbers of this folder: a claim `holds` where the whole 95 % interval (Student's t over
seeds) lies on the claimed side of its bound, `does not hold` where it lies on the other side, and is `not settled` by
these seeds where the interval holds the bound. Accuracies of compared runs are paired by seed, and the intervals are
about seeds (first weights, order, crops, slices), with the test images fixed. Trainings of fewer than 10 epochs, or
none of which leaves the untrained model 5 points behind, settle nothing about each other, whatever their interval:
`not settled at this length`. Among this many intervals of 95 % some will be wrong by chance."""


def write_report(folder: Path) -> Path:
    """Write report.md from all records of the folder, in the order of ANALYSES; returns its path."""
    records = [
        record for name in ANALYSES if (record := read_json(folder / f"{name}.json")) and record["format"] == FORMAT
    ]
    parts = [HEAD, summary(records), *(section(record, folder) for record in records)]
    path = folder / "report.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def summary(records: list[Json]) -> str:
    """One line an analysis: how many claims hold."""
    rows = []
    for record in records:
        verdicts = [claim["verdict"] for claim in record["claims"]]
        rows.append(
            [
                record["analysis"],
                ANALYSES[record["analysis"]],
                *(str(verdicts.count(one)) for one in (HOLDS, FAILS, OPEN, SHORT)),
            ]
        )
    return markdown(["analysis", "", HOLDS, FAILS, OPEN, SHORT], rows)


def section(record: Json, folder: Path) -> str:
    """Figures, claims and tables of one analysis."""
    name, where = record["analysis"], record["environment"]
    figures = sorted(path.name for path in folder.glob(f"{name}*.png"))
    seconds = f"{clock(record['seconds'])} of wall time summed over its runs, {len(record['seeds'])} seeds or repeats"
    lines = [
        f"## {name}: {ANALYSES[name]}",
        "",
        f"`visreg analyze {name}`; {seconds}; torch {where['torch']}, {where['device']}.",
        "",
        *(f"![{name}]({figure})\n" for figure in figures),
        markdown(
            ["claim", "verdict", "mean [95 % interval]"],
            [[one["claim"], one["verdict"], one["evidence"]] for one in record["claims"]],
        ),
    ]
    for shown in record["tables"]:
        lines += ["", f"{shown['title']}:", "", markdown(shown["columns"], shown["rows"])]
    return "\n".join(lines)
