# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""The measured results of a run as rows of one form, whichever file they stand in."""

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


# Titles of the protocols of `visreg evaluate`, in the order of a card.
PROTOCOLS = {
    "knn": "nearest neighbors",
    "linear": "linear classifier",
    "fewshot": "few-shot classifier",
    "retrieval": "retrieval",
    "segment": "linear segmentation head, frozen patch tokens",
    "finetune": "fine-tuned network",
}

# Keys of summary.json -> protocol, as the end of a run measures it.
SUMMARY = {
    "knn": "20-NN, frozen CLS token",
    "linear": "linear classifier, frozen CLS token; settings chosen on validation images",
}

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
    return [
        Result(
            kind, protocol, dataset, "accuracy", metadata.summary[f"{kind}_{role}"], role,
            images=held_out.get("num_examples"), **where,
        )
        for kind, protocol in SUMMARY.items()
        for role in ("before", "after")
        if is_number(metadata.summary.get(f"{kind}_{role}"))
    ]  # fmt: skip


def evaluation_result(content: dict[str, Any]) -> Result | None:
    """The result in a file of `visreg evaluate`, or None if it has no finite value."""
    if not {"protocol", "dataset", "metric", "value"} <= content.keys() or not is_number(content["value"]):
        return None
    low, high = content.get("interval") or (None, None)
    return Result(
        str(content["protocol"]),
        protocol_label(content),
        str(content["dataset"]),
        str(content["metric"]),
        content["value"],
        low=low,
        high=high,
        images=test_images(content),
        **{name: content.get(name) for name in ("config", "split", "revision")},
    )


def protocol_label(content: dict[str, Any]) -> str:
    """`20-NN, frozen CLS token of the last 4 blocks`: how a result was measured, as far as its file says."""
    kind, settings = str(content["protocol"]), content.get("settings") or {}
    label = PROTOCOLS.get(kind, kind)
    if kind == "knn" and is_number(settings.get("k")):
        label = f"{settings['k']}-NN"
    layers = (content.get("features") or {}).get("layers")
    if is_number(layers):
        label += f", frozen {POOLINGS[content['features'].get('pooling') or 'cls']}"
        label += f" of the last {layers} blocks" if layers > 1 else ""
    chosen_on = (content.get("selection") or {}).get("on")
    return label + (f"; settings chosen on {chosen_on} images" if chosen_on else "")


def test_images(content: dict[str, Any]) -> int | None:
    """How many images a result was measured on; None where its file does not say, or a split was cut in two."""
    data = content.get("data") or {}
    count = (data.get("test") or {}).get("num_examples")
    if not is_number(count) or data.get("train_share"):
        return None
    limit = (content.get("features") or {}).get("limit")
    return min(count, limit) if is_number(limit) else count


def row_key(result: Result) -> tuple[str, str, str]:
    """Protocol, data and metric: what a row of the table is about."""
    return result.protocol, data_name(result), result.metric.replace("_", " ")


def as_table(results: list[Result]) -> list[dict[str, str]]:
    """Rows of a table: a protocol on a data set, before and after training, shares in percent."""
    rows: dict[tuple, dict[str, str]] = {}
    for result in results:
        protocol, data, metric = row_key(result)
        label = protocol if metric == "accuracy" else f"{protocol}: {metric}"
        empty = {"protocol": label, "data": data, "before": "", "after": ""}
        rows.setdefault((label, data), empty)[result.role] = percent(result)
    return list(rows.values())


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
    return shown
