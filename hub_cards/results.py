# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The measured results of a run as rows of one form, whichever file they stand in."""

from typing import Any, NamedTuple

from .facts import RunFacts, data_words, is_number


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
SUMMARY = {"knn": "20-NN, frozen features", "linear": "linear classifier, frozen features"}

# Protocols of `visreg evaluate` in words.
PROTOCOLS = {
    "knn": "nearest neighbours, frozen features",
    "linear": "linear classifier, frozen features",
    "fewshot": "few-shot classifier, frozen features",
    "retrieval": "retrieval, frozen features",
    "segment": "linear segmentation head, frozen patch features",
    "finetune": "fine-tuned network",
}


class Reference(NamedTuple):
    """A published figure beside a result: `value` in percent, `note` says where from and how it was chosen."""

    method: str
    note: str
    value: float


# Name of an evaluation file -> published figures of the same protocol and data set.
References = dict[str, list[Reference]]


def results_of(facts: RunFacts) -> list[Result]:
    """All finite results of a run: those of its end, and those of `visreg evaluate`."""
    evaluated = [evaluation_result(content) for content in facts.evaluations.values()]
    return summary_results(facts) + [result for result in evaluated if result is not None]


def summary_results(facts: RunFacts) -> list[Result]:
    """kNN and linear accuracy that the run measured on its held-out split, before and after training."""
    held_out = facts.held_out
    dataset = held_out.get("dataset") or facts.recipe.get("eval_dataset") or facts.recipe.get("dataset")
    if not dataset:
        return []
    where = {name: held_out.get(name) for name in ("config", "split", "revision")}
    return [
        Result(protocol, dataset, "accuracy", facts.summary[f"{key}_{role}"], role, **where)
        for key, protocol in SUMMARY.items()
        for role in ("before", "after")
        if is_number(facts.summary.get(f"{key}_{role}"))
    ]


def evaluation_result(content: dict[str, Any]) -> Result | None:
    """The result in a file of `visreg evaluate`, or None if it has no finite value."""
    if not {"protocol", "dataset", "metric", "value"} <= content.keys() or not is_number(content["value"]):
        return None
    protocol = PROTOCOLS.get(content["protocol"], str(content["protocol"]))
    protocol += feature_words(content.get("features") or {}, content.get("settings") or {})
    chosen_on = (content.get("selection") or {}).get("on")
    if chosen_on:
        protocol += f"; settings chosen on {'the test split' if chosen_on == 'test' else chosen_on}"
    low, high = content.get("interval") or (None, None)
    where = {name: content.get(name) for name in ("config", "split", "revision")}
    return Result(
        protocol, str(content["dataset"]), str(content["metric"]), content["value"], low=low, high=high, **where
    )


def feature_words(features: dict[str, Any], settings: dict[str, Any]) -> str:
    """`, last 4 blocks, 20 neighbours`: what a protocol was run on, of what its file says."""
    words = []
    if features.get("layers"):
        words.append(f"last {features['layers']} blocks" if features["layers"] > 1 else "last block")
    if is_number(settings.get("k")):
        words.append(f"{settings['k']} neighbours")
    return "".join(f", {word}" for word in words)


def as_table(results: list[Result]) -> list[dict[str, str]]:
    """Rows of a table: a protocol on a data set, before and after training, shares in percent."""
    rows: dict[tuple, dict[str, str]] = {}
    for result in results:
        key = (result.protocol, data_name(result), result.metric.replace("_", " "))
        row = rows.setdefault(key, dict(zip(("protocol", "data", "metric"), key, strict=True), before="", after=""))
        row[result.role] = percent(result)
    return list(rows.values())


def beside(facts: RunFacts, references: References) -> list[dict[str, str]]:
    """Rows of a table: each result that has published figures beside it, then those."""
    rows = []
    for name, published in references.items():
        result = evaluation_result(facts.evaluations.get(name, {}))
        if result is None or not published:
            continue
        data = data_name(result)
        rows.append({"model": "this model", "data": data, "value": percent(result), "note": result.protocol})
        rows += [
            {"model": row.method, "data": data, "value": f"{row.value:.1f} %", "note": row.note} for row in published
        ]
    return rows


def data_name(result: Result) -> str:
    """`org/name configuration split`, of what is known."""
    name = data_words(result.dataset, result.revision)
    return " ".join(part for part in (name, result.config, result.split) if part)


def percent(result: Result) -> str:
    """A share in percent, with its 95 % interval if there is one."""
    shown = f"{100 * result.value:.1f} %"
    if is_number(result.low) and is_number(result.high):
        shown += f" ({100 * result.low:.1f} to {100 * result.high:.1f})"
    return shown
