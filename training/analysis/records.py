# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What an analysis leaves: a record (JSON) of values a seed, their spread, tables, and verdicts that follow from them.

A verdict is computed from an interval and a bound, and from nothing else: `holds` where the whole 95 % interval
(Student's t over seeds) lies on the claimed side of the bound, `does not hold` where it lies on the other, else `not
settled`. Accuracies of trainings that are too short to tell (comparison.py) give no verdict: `not settled at this
length`.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..evaluation.intervals import of_draws
from ..monitoring.record import environment
from ..run_folder import Json, read_json, write_json


FORMAT = 1  # of the records
HOLDS, FAILS, OPEN = "holds", "does not hold", "not settled"
SHORT = "not settled at this length"


def spread(values: Iterable[float]) -> Json:
    """Values a seed with mean, standard deviation (unbiased) and 95 % interval; None for what one seed cannot give."""
    values = [float(value) for value in values]
    several = len(values) > 1
    return {
        "values": values,
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if several else None,
        "interval": list(of_draws(values)) if several else None,
    }


def claim(
    statement: str,
    values: Iterable[float],
    bound: float = 0.0,
    *,
    below: bool = False,
    unit: str = "",
    scale: float = 1.0,
) -> Json:
    """Whether the mean of `values` (one a seed; paired differences, ratios, ...) lies above `bound`, or below it.

    Args:
        statement: the claim, as a sentence about this scale.
        unit, scale: values are shown times `scale`, with the unit behind.
    """
    found = spread(values)
    low, high = (found["interval"] if len(found["values"]) >= 3 else None) or (-math.inf, math.inf)
    holds, fails = (high < bound, low > bound) if below else (low > bound, high < bound)
    shown = [number(value * scale) for value in (found["mean"], low, high, bound)]
    interval = f" [{shown[1]}, {shown[2]}]" if math.isfinite(low) else " (fewer than 3 seeds: no interval)"
    evidence = f"{shown[0]}{interval}{unit}; bound: {'below' if below else 'above'} {shown[3]}{unit}"
    verdict = HOLDS if holds else FAILS if fails else OPEN
    return {"claim": statement, "verdict": verdict, "evidence": evidence, "bound": bound, "below": below, **found}


def points(statement: str, better: Sequence[float], worse: Sequence[float], margin: float = 0.0) -> Json:
    """A claim about accuracies paired by seed: `better` is above `worse` less `margin` (shares; shown in points)."""
    differences = [one - other for one, other in zip(better, worse, strict=True)]
    return claim(statement, differences, 0.0 - margin, unit=" points", scale=100)


def number(value: float) -> str:
    """A number for people: 3 digits, powers of ten where it is far from 1."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.2e}" if not 1e-3 <= abs(value) < 1e5 else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def percent(values: Iterable[float]) -> str:
    """`32.1 ± 0.4`: mean and standard deviation over seeds of shares, in percent."""
    found = spread(values)
    return f"{100 * found['mean']:.1f}" + (f" ± {100 * found['std']:.1f}" if found["std"] is not None else "")


def table(title: str, columns: list[str], rows: list[list[str]]) -> Json:
    return {"title": title, "columns": columns, "rows": rows}


def write_record(folder: Path, name: str, record: Json) -> Json:
    """Write `name`.json, with versions and machine; returns what was written."""
    record = {"analysis": name, "format": FORMAT, **record, "environment": environment()}
    write_json(folder / f"{name}.json", record)
    return record


def finished(folder: Path, name: str, settings: Json) -> Json | None:
    """The record of an earlier call with the same settings, or None."""
    record = read_json(folder / f"{name}.json")
    same = record is not None and record["format"] == FORMAT and record["settings"] == settings
    return record if same else None
