# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The measured results of a run as rows of one form, whichever file they stand in."""

from typing import Any, NamedTuple

from .facts import RunFacts, is_number


class Result(NamedTuple):
    """One number.

    Attributes:
        protocol: how it was measured, in words.
        dataset, config, split, revision: on what; None where the file does not say.
        metric: as in `evaluate`, such as `accuracy`.
        value: a share of 1 for shares.
        role: `after` training, or `before` it (random or initial weights).
        low, high: confidence interval, None without one.
    """

    protocol: str
    dataset: str
    metric: str
    value: float
    role: str = "after"
    config: str | None = None
    split: str | None = None
    revision: str | None = None
    low: float | None = None
    high: float | None = None


# Keys of summary.json -> protocol.
SUMMARY = {"knn": "20-NN on frozen features", "linear": "linear classifier on frozen features"}


def results_of(facts: RunFacts) -> list[Result]:
    """All finite results of a run, those of its end and those of `visreg evaluate`."""
    return summary_results(facts)


def summary_results(facts: RunFacts) -> list[Result]:
    """kNN and linear accuracy that the run measured on its held-out split, before and after training."""
    held_out = facts.held_out or {}
    where: dict[str, Any] = {
        "dataset": held_out.get("dataset") or facts.recipe.get("eval_dataset") or facts.recipe.get("dataset"),
        "config": held_out.get("config"),
        "split": held_out.get("split") or facts.recipe.get("eval_split"),
        "revision": held_out.get("revision"),
    }
    if not where["dataset"]:
        return []
    return [
        Result(protocol, metric="accuracy", value=facts.summary[f"{key}_{role}"], role=role, **where)
        for key, protocol in SUMMARY.items()
        for role in ("before", "after")
        if is_number(facts.summary.get(f"{key}_{role}"))
    ]


def as_table(results: list[Result]) -> list[dict[str, str]]:
    """Rows of a table: a protocol on a data set, before and after training, shares in percent."""
    rows: dict[tuple, dict[str, str]] = {}
    for result in results:
        data = " ".join(part for part in (result.dataset, result.config, result.split) if part)
        key = (result.protocol, result.metric, data)
        row = rows.setdefault(key, {"protocol": result.protocol, "data": data, "before": "", "after": ""})
        row[result.role] = readable(result)
    return list(rows.values())


def readable(result: Result) -> str:
    """A value as it is shown: shares in percent, with their interval if there is one."""
    shown = f"{100 * result.value:.1f} %"
    if is_number(result.low) and is_number(result.high):
        shown += f" ({100 * result.low:.1f} to {100 * result.high:.1f})"
    return shown
