# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The measured results of a run as rows of one form, whichever file they stand in."""

import json
from typing import Any, NamedTuple

from .metadata import RunMetadata, dataset_label, is_number


class Result(NamedTuple):
    """One number.

    Attributes:
        kind: the protocol as `visreg evaluate` names it.
        protocol: how it was measured, for people.
        dataset, config, split, revision: on what; None where the file does not say.
        metric: as in `evaluate`, such as `accuracy`.
        value: a share of 1 for shares.
        role: `after` training, or `before` it (random or initial weights).
        low, high: 95% confidence interval, None without one.
        images: how many it was measured on, None where the file does not say.
        how: all that has to be equal where results stand in one row, as far as the file says.
        notes: sentences without which the value would mislead.
        balanced, majority: balanced accuracy, and the share of the largest class, where classes differ in size.
    """

    kind: str
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
    images: int | None = None
    how: str = ""
    notes: tuple[str, ...] = ()
    balanced: float | None = None
    majority: float | None = None


# Titles of the protocols of `visreg evaluate`, in the order of a card.
PROTOCOLS = {
    "knn": "nearest neighbors",
    "linear": "linear classifier",
    "fewshot": "few-shot classifier",
    "retrieval": "retrieval",
    "segment": "linear segmentation head, frozen patch tokens",
    "finetune": "fine-tuned network",
}

# Keys of summary.json -> what `visreg evaluate` would write, where the run did not record it.
SUMMARY = {
    "knn": {"settings": {"k": 20}, "features": {"layers": 1}},
    "linear": {"features": {"layers": 1}, "selection": {"on": "validation"}},
}

SOLVERS = {"sgd": "SGD", "lbfgs": "L-BFGS"}
POOLINGS = {"cls": "CLS token", "mean": "mean of the patch tokens", "both": "CLS token and mean of the patch tokens"}


def results_of(metadata: RunMetadata) -> list[Result]:
    """All finite results of a run, by protocol: those of its end, and those of `visreg evaluate`.

    Where both measured the same, the second stands: it has an interval.
    """
    evaluated = [result for content in metadata.evaluations.values() if (result := evaluation_result(content))]
    covered = {row_key(result) for result in evaluated}
    own = [row for row in summary_results(metadata) if row.role == "before" or row_key(row) not in covered]
    order = list(PROTOCOLS)
    return sorted(own + evaluated, key=lambda row: order.index(row.kind) if row.kind in order else len(order))


def summary_results(metadata: RunMetadata) -> list[Result]:
    """kNN and linear accuracy that the run measured on its held-out split, before and after training."""
    held_out = metadata.held_out
    dataset = held_out.get("dataset") or metadata.recipe.get("eval_dataset") or metadata.recipe.get("dataset")
    if not dataset:
        return []
    where = {name: held_out.get(name) for name in ("config", "split", "revision")}
    measured = metadata.summary.get("evaluation") or {}
    results = []
    for kind, known in SUMMARY.items():
        content = {"protocol": kind, "data": {"train_images": measured.get("train_images")}} | known
        if measured:
            settings = (measured.get("settings") or {}).get(kind)
            content |= {"settings": settings, "features": measured.get("features")}
            content["data"] |= {"train": measured.get("train"), "test_images": measured.get("test_images")}
        shared = {
            "images": measured.get("test_images") or held_out.get("num_examples"),
            "how": measurement(content),
            "notes": tuple(measured.get("notes") or ()),
            **where,
        }
        results += [
            Result(
                kind, protocol_label(content), dataset, "accuracy", metadata.summary[f"{kind}_{role}"], role, **shared
            )
            for role in ("before", "after")
            if is_number(metadata.summary.get(f"{kind}_{role}"))
        ]
    return results


def evaluation_result(content: dict[str, Any]) -> Result | None:
    """The result in a file of `visreg evaluate`, or None if it has no finite value."""
    named = all(content.get(name) is not None for name in ("protocol", "dataset", "metric"))
    if not named or not is_number(content.get("value")):
        return None
    low, high = interval if len(interval := content.get("interval") or ()) == 2 else (None, None)
    return Result(
        str(content["protocol"]),
        protocol_label(content),
        str(content["dataset"]),
        str(content["metric"]),
        content["value"],
        low=low,
        high=high,
        images=test_images(content),
        how=measurement(content),
        notes=tuple(content.get("notes") or ()),
        balanced=(content.get("metrics") or {}).get("balanced_accuracy"),
        majority=(content.get("metrics") or {}).get("majority_share"),
        **{name: content.get(name) for name in ("config", "split", "revision")},
    )


def protocol_label(content: dict[str, Any]) -> str:
    """`20-NN, frozen CLS token of the last 4 blocks at 224 px, learned from 1,437 images`: how a result was measured,
    as far as its file says."""
    kind, settings = str(content["protocol"]), content.get("settings") or {}
    label = PROTOCOLS.get(kind, kind)
    if kind == "knn" and is_number(settings.get("k")):
        label = f"{settings['k']}-NN"
    if solver := SOLVERS.get(settings.get("solver")):
        label += f" ({solver})"
    layers = (content.get("features") or {}).get("layers")
    if is_number(layers):
        label += f", frozen {POOLINGS.get(content['features'].get('pooling') or 'cls', 'features')}"
        label += f" of the last {layers} blocks" if layers > 1 else ""
    size = ((content.get("features") or {}).get("transform") or {}).get("size")
    if size and len(size) == 2:
        label += f" at {size[0]} px" if size[0] == size[1] else f" at {size[0]} x {size[1]} px"
    if is_number(learned_from := (content.get("data") or {}).get("train_images")):
        label += f", learned from {learned_from:,} images"
    if preset := settings.get("protocol"):
        label += f"; {preset} protocol"
    chosen_on = (content.get("selection") or {}).get("on")
    return label + (f"; settings chosen on {chosen_on} images" if chosen_on else "")


def measurement(content: dict[str, Any]) -> str:
    """Settings, what was taken of the model, and the images that were learned from: results that differ in any of
    these are not put side by side. Empty where the file does not say it.

    The seed draws the order of batches; the settings that were chosen are the result's own.
    """
    settings = content.get("settings") or {}
    settings = {name: value for name, value in settings.items() if name != "seed" and value is not None}
    taken, data = content.get("features") or {}, content.get("data") or {}
    if "transform" not in taken or not is_number(data.get("train_images")):
        return ""
    of = [(data.get("train") or {}).get("fingerprint"), data["train_images"], data.get("train_share")]
    return json.dumps([settings, taken, of, (content.get("selection") or {}).get("on")], sort_keys=True)


def test_images(content: dict[str, Any]) -> int | None:
    """How many images a result was measured on; None where its file does not say, or a split was cut in two."""
    data = content.get("data") or {}
    if is_number(data.get("test_images")):
        return data["test_images"]
    count = (data.get("test") or {}).get("num_examples")
    if not is_number(count) or data.get("train_share"):
        return None
    limit = (content.get("features") or {}).get("limit")
    return min(count, limit) if is_number(limit) else count


def row_key(result: Result) -> tuple[str, str, str, str]:
    """Protocol, data, metric and measurement: what a row of the table is about, like with like."""
    return result.protocol, data_name(result), result.metric.replace("_", " "), result.how


def as_table(results: list[Result]) -> list[dict[str, str]]:
    """Rows of a table: a protocol on a data set, before and after training, shares in percent."""
    rows: dict[tuple, dict[str, str]] = {}
    for result in results:
        protocol, data, metric, how = row_key(result)
        label = protocol if metric == "accuracy" else f"{protocol}: {metric}"
        empty = {"protocol": label, "data": data, "before": "", "after": ""}
        rows.setdefault((label, data, how), empty)[result.role] = percent(result)
    return list(rows.values())


def all_notes(results: list[Result]) -> list[str]:
    """Each note once, with what it is about."""
    said = [f"{note} ({result.protocol}; {data_name(result)})" for result in results for note in result.notes]
    return list(dict.fromkeys(said))


def headline(metadata: RunMetadata) -> list[tuple[Result, Result | None]]:
    """What the run measured at its end, each with what it was before training; None where that is not known."""
    measured = summary_results(metadata)
    before = {result.kind: result for result in measured if result.role == "before"}
    return [(result, before.get(result.kind)) for result in measured if result.role == "after"]


def comparison(metadata: RunMetadata) -> list[dict[str, str]]:
    """Rows of a table: each result that has published figures of the same protocol and data set, then those."""
    rows = []
    for content in metadata.evaluations.values():
        result = evaluation_result(content)
        if result is None:
            continue
        # Here, because it imports torch, which a card without results can do without.
        from visreg_training.evaluation.reports.compare import published_figures

        data, published = data_name(result), published_figures(content)
        if published:
            rows.append({"model": "this model", "data": data, "value": percent(result), "note": result.protocol})
        rows += [
            {"model": row.method, "data": data, "value": f"{figure:.1f}%", "note": row.note}
            for row, figure in published
        ]
    return rows


def data_name(result: Result) -> str:
    """`org/name, configuration, test split (360 images)`, of what is known."""
    parts = [dataset_label(result.dataset, result.revision), result.config, result.split and f"{result.split} split"]
    counted = f" ({result.images:,} images)" if result.images else ""
    return ", ".join(part for part in parts if part) + counted


def percent(result: Result) -> str:
    """A share in percent, with its 95% interval if there is one."""
    shown = f"{100 * result.value:.1f}%"
    if is_number(result.low) and is_number(result.high):
        shown += f" ({100 * result.low:.1f} to {100 * result.high:.1f})"
    if is_number(result.balanced) and is_number(result.majority):
        shown += f"; balanced {100 * result.balanced:.1f}%, majority {100 * result.majority:.1f}%"
    return shown
