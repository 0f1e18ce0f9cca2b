# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Results side by side, with the published figures of the same protocol as reference rows."""

from collections.abc import Iterable

from ...run_folder import Json
from ..suite_datasets import ENTRIES, entry_of
from .published import OTHER_METRIC, PUBLISHED, Published
from .results import images_of, markdown, percent, way


REFERENCES = ("matching", "all", "none")


def compare(results: Iterable[Json], references: str = "matching") -> str:
    """Markdown: one table a protocol and metric, one row a model and way of measuring, one column a data set; notes.

    Args:
        references: `matching` adds published rows that have a figure for a data set shown, `all` adds every published
            table, `none` nothing.

    Raises:
        ValueError: for another word, or without results.
    """
    if references not in REFERENCES:
        raise ValueError(f"references is one of {', '.join(REFERENCES)}, not {references!r}")
    results = list(results)
    if not results:
        raise ValueError("there is no result to show")
    groups: dict[tuple[str, str], list[dict]] = {}
    for result in results:
        groups.setdefault((result["protocol"], result["metric"]), []).append(result)
    parts = [table(*key, group, references) for key, group in sorted(groups.items())]
    return "\n\n".join(parts) + "\n"


def summary(result: Json) -> str:
    """One result: its table beside published figures, then its further metrics, one a line."""
    lines = [compare([result])]
    for name, value in result["metrics"].items():
        if isinstance(value, dict):
            value = f"{value['value']:.4f} ({value['interval'][0]:.4f} to {value['interval'][1]:.4f})"
        lines.append(f"{name}: {value if isinstance(value, int | str) else f'{value:.4f}'}\n")
    return "".join(lines)


def table(protocol: str, metric: str, results: list[Json], references: str) -> str:
    """The table of one protocol and metric."""
    columns = list(dict.fromkeys(column(result) for result in results))
    published = [] if references == "none" else [row for row in PUBLISHED if row.protocol == protocol]
    if references == "matching":
        published = [row for row in published if row.figures.keys() & set(columns)]
    else:
        columns += [key for row in published for key in row.figures if key not in columns]
        columns = list(dict.fromkeys(columns))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for result in results:
        key = (model_name(result, results), way(result) + other_images(result, results))
        rows.setdefault(key, {})[column(result)] = percent(result)
    body = [[name, how, *(cells.get(key, "") for key in columns)] for (name, how), cells in rows.items()]
    body += [reference(row, columns, metric) for row in published]
    titles = [ENTRIES[key].title if key in ENTRIES else key for key in columns]
    notes = [f"- {r['model']['name']}, {column(r)}: {note}" for r in results for note in r.get("notes") or []]
    shown = "\n\n" + "\n".join(dict.fromkeys(notes)) if notes else ""
    return f"### {protocol}: {metric}, %\n\n" + markdown(["model", "protocol", *titles], body) + shown


def column(result: Json) -> str:
    """Key of the data set in the table of suites, or its name."""
    key = result.get("entry") or entry_of(result["dataset"])
    return key or " ".join(part for part in (result["dataset"], result.get("config"), result.get("split")) if part)


def published_figures(result: Json) -> list[tuple[Published, float]]:
    """Published rows of the same protocol, data set and metric as a result, each with its figure in percent."""
    key = column(result)
    other = OTHER_METRIC.get(key, result["metric"]) != result["metric"]
    rows = [] if other else [row for row in PUBLISHED if row.protocol == result["protocol"]]
    return [(row, row.figures[key]) for row in rows if key in row.figures]


def model_name(result: Json, results: list[Json]) -> str:
    """The name of the model, with its weights where several weights have it: a run before and after training."""
    name, weights = result["model"]["name"], result["model"].get("weights")
    known = {other["model"].get("weights") for other in results if other["model"]["name"] == name}
    return f"{name} ({str(weights)[:8]})" if len(known) > 1 else name


def other_images(result: Json, results: list[Json]) -> str:
    """How many images a result was learned from and tested on, where results of one data set differ in that."""
    same = [images_of(other) for other in results if column(other) == column(result)]
    if len(set(same)) == 1:
        return ""
    data = result.get("data") or {}
    counts = [(data.get(f"{split}_images"), split) for split in ("train", "test")]
    shown = [f"{count:,} {name}" for count, name in counts if count is not None]
    number = list(dict.fromkeys(same)).index(images_of(result)) + 1
    return f"; images: {', '.join(shown)} (set {number})" if shown else f"; images: set {number}"


def reference(row: Published, columns: list[str], metric: str) -> list[str]:
    """A published row. Figures of another metric than ours carry a mark."""
    cells = []
    for key in columns:
        figure = row.figures.get(key)
        mark = "*" if OTHER_METRIC.get(key, metric) != metric else ""
        cells.append("" if figure is None else f"{figure:.1f}{mark}")
    starred = " (* another metric than ours)" if any(cell.endswith("*") for cell in cells) else ""
    return [row.method, row.note + starred, *cells]
