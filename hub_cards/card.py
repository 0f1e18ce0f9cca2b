# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Model cards from the files of a run: nothing that was not measured appears, and a missing number is left out."""

import dataclasses
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml
from huggingface_hub import EvalResult, ModelCardData

from visreg_training.run_folder import RunFolder, model_directory, write_text

from .allowlist import refuse_linked_records
from .figures import Figure, copy_figures
from .header import HEADER, parse_card, read_card_text
from .license import (
    KNOWN,
    OTHER,
    License,
    Origin,
    asked_license,
    chosen_license,
    is_hub_id,
    license_title,
    origin_of,
    origin_of_card,
    origin_of_file,
    recorded_origin,
)
from .markup import fenced, plain, slug, template
from .metadata import RunMetadata, dataset_label, is_number, read_metadata
from .results import Result, all_notes, as_table, comparison, data_name, headline, percent, results_of
from .tables import architecture, cost_rows, data_rows, method, training_rows


TAGS = ["visreg", "self-supervised-learning", "vision", "vit", "feature-extraction"]
# Protocols whose task on the Hub is not the classification of images.
TASKS = {"retrieval": "image-feature-extraction", "segment": "image-segmentation"}
REQUIRED = ("library_name", "pipeline_tag", "license", "tags")
_MARK = re.compile(r"<!-- visreg card ([0-9a-f]{16}) -->\s*\Z")


class ExistingCard(NamedTuple):
    """A card that is there.

    Attributes:
        edited: whether it differs from what was written, or was never written by this package.
        origin: of the weights, as the card states it.
    """

    edited: bool
    origin: Origin


def write_card(
    run: Path,
    *,
    repo_id: str | None = None,
    license: str | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes run/model/README.md, and the figures that it shows beside it, from the files of the run.

    Args:
        run: folder of a run; it needs a `model` folder with config.json, everything else is optional.
        repo_id: where the model will be, for the lines that load it; default: the card's folder.
        license: the Hub's identifier; default: that of the card that is there, else that of the weights the run
            started from, else apache-2.0.
        license_name: of the license `other`: small letters, digits, dots and hyphens.
        license_link: address of its text.
        overwrite: whether to replace a card that somebody edited after it was written.

    Returns:
        The card's path.

    Raises:
        ValueError: there is no model, a file of the run cannot be read, the card was edited, or the license is not
            possible.
    """
    folder = RunFolder(run)
    if not folder.finished():
        raise ValueError(f"{run} is not a finished run: it has no model/config.json.")
    refuse_linked_records(folder)
    path = folder.model / "README.md"
    there = read_card(path)
    if there and there.edited and not overwrite:
        raise ValueError(f"{path} was edited by hand: --overwrite replaces it.")
    asked = asked_license(license, license_name, license_link) or (there.origin.terms if there else None)
    metadata = read_metadata(folder, folder.model)
    write_text(path, render_card(metadata, copy_figures(folder, folder.model), repo_id, asked))
    return path


def write_converted_card(
    directory: Path,
    *,
    source: str,
    license: str | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
) -> Path:
    """Writes the card of a checkpoint directory that was converted from a file.

    Args:
        directory: of the checkpoint.
        source: name of the file; those of the released weights bring their origin and their license.
        license: of other files; without one the card says that it is not known, and a push asks for it.
        license_name, license_link: see `write_card`.

    Raises:
        ValueError: the license is not known, or not possible for these weights.
    """
    path = Path(directory) / "README.md"
    metadata = read_metadata(RunFolder(directory), path.parent)
    metadata = dataclasses.replace(metadata, origin=origin_of_file(source), name=Path(source).stem)
    write_text(path, render_card(metadata, [], asked=asked_license(license, license_name, license_link)))
    return path


def write_derived_card(directory: Path, *, start: str) -> Path | None:
    """Writes the card of a network that was fine-tuned from `start`, whose license binds it; None if it is not ours.

    Args:
        directory: of the checkpoint.
        start: folder of a run, checkpoint directory or Hub id.
    """
    path = Path(directory) / "README.md"
    metadata = read_metadata(RunFolder(directory), path.parent)
    if metadata.config.get("model_type") != "visreg_vit":
        return None
    write_text(path, render_card(dataclasses.replace(metadata, origin=recorded_origin(start)), []))
    return path


def render_card(
    metadata: RunMetadata, figures: list[Figure], repo_id: str | None = None, asked: License | None = None
) -> str:
    """The text of a card. Raises ValueError if the license is not possible for weights of this origin."""
    origin = weights_origin(metadata)
    license = chosen_license(asked, origin)
    results = results_of(metadata)
    on_hub = bool(repo_id) and is_hub_id(repo_id)
    filters = {
        "table": as_table,
        "data_name": data_name,
        "percent": percent,
        "notes": all_notes,
        "license_title": license_title,
    }
    body = template("card.md.jinja", **filters).render(
        metadata=metadata,
        title=title(metadata, repo_id),
        location=repo_id if on_hub else "path/to/this/folder",
        on_hub=on_hub,
        config=metadata.config,
        results=results,
        headline=headline(metadata),
        method=method(metadata),
        comparison=comparison(metadata),
        figures={figure.name: figure for figure in figures},
        origin=origin,
        license=license,
        data=data_rows(metadata),
        dataset=dataset_label(str(metadata.source.get("dataset")), metadata.source.get("revision")),
        training=training_rows(metadata),
        cost=cost_rows(metadata),
        recipe=fenced(yaml.safe_dump(metadata.recipe, sort_keys=False, allow_unicode=True), "yaml"),
        architecture=architecture(metadata),
        classes=class_count(metadata),
        adapter=metadata.recipe.get("lora_rank") is not None and not metadata.unfinished,
    )
    header = card_header(metadata, origin, license, results, title(metadata, repo_id)).to_yaml(line_break="\n")
    content = f"---\n{header}\n---\n\n{body.strip()}\n"
    return f"{content}\n<!-- visreg card {_digest(content)} -->\n"


def card_header(
    metadata: RunMetadata, origin: Origin, license: License | None, results: list[Result], name: str
) -> ModelCardData:
    """The YAML header, as huggingface_hub's own class makes it."""
    sources = [metadata.source.get("dataset")] if metadata.source.get("revision") else []
    evaluated = [_eval_result(result) for result in results if result.role == "after"]
    return ModelCardData(
        library_name="timm" if "architecture" in metadata.config else "transformers",
        pipeline_tag="image-classification" if class_count(metadata) else "image-feature-extraction",
        license=license and license.id,
        license_name=license and license.name,
        license_link=license and license.link,
        base_model=origin.base_model,
        datasets=[source for source in sources if is_hub_id(str(source))] or None,
        metrics=sorted({slug(result.metric) for result in results}) or None,
        tags=[tag for tag in TAGS if tag != "vit" or not metadata.other_family],
        model_name=slug(name) if evaluated else None,
        eval_results=evaluated or None,
    )


def _eval_result(result: Result) -> EvalResult:
    return EvalResult(
        task_type=TASKS.get(result.kind, "image-classification"),
        dataset_type=result.dataset if is_hub_id(result.dataset) else slug(result.dataset).lower(),
        dataset_name=plain(result.dataset),
        dataset_config=plain(result.config) if result.config else None,
        dataset_split=plain(result.split) if result.split else None,
        dataset_revision=plain(result.revision) if result.revision else None,
        metric_type=slug(result.metric),
        metric_name=plain(f"{result.metric}, {result.protocol}"),
        metric_value=round(result.value, 4),
    )


def check_card(path: Path) -> list[str]:
    """What is wrong with a card, a line each; empty if huggingface_hub's local checks and ours accept it."""
    text = read_card_text(Path(path))
    if not HEADER.match(text):
        return ["there is no YAML header between two lines of ---"]
    try:
        data = parse_card(text).data
    except ValueError as error:
        return [f"the header is not valid: {plain(error)}"]
    return [*_header_problems(data), *_figure_problems(text, Path(path).parent)]


def _header_problems(data: ModelCardData) -> Iterator[str]:
    header = data.to_dict()
    yield from (f"the header has no {name}" for name in REQUIRED if not header.get(name))
    if data.license and str(data.license) not in (*KNOWN, OTHER):
        yield f"license: '{plain(str(data.license))}' is not one of {', '.join((*KNOWN, OTHER))}"
    if data.license == OTHER and not data.license_name:
        yield "license: other needs a license_name"
    for name in ("datasets", "base_model"):
        given = header.get(name) or []
        for value in [given] if isinstance(given, str) else given:
            if not is_hub_id(str(value)):
                yield f"{name}: '{plain(value)}' is no Hub id of the form organization/name"
    for result in data.eval_results or []:
        if not is_number(result.metric_value):
            yield f"model-index: the {plain(result.metric_type)} is not a finite number"


def _figure_problems(text: str, folder: Path) -> Iterator[str]:
    for figure in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text):
        if "://" not in figure and not (folder / figure).is_file():
            yield f"the figure {plain(figure)} is not beside the card"


def read_card(path: Path) -> ExistingCard | None:
    """The card at a path, or None."""
    if not path.is_file():
        return None
    text = read_card_text(path)
    mark = _MARK.search(text)
    edited = mark is None or _digest(text[: mark.start()].rstrip("\n") + "\n") != mark[1]
    return ExistingCard(edited, origin_of_card(text))


def find_card(path: Path) -> Path:
    """The card of a run or of a checkpoint directory, or the file itself.

    Raises:
        ValueError: there is none.
    """
    for card in (path, Path(model_directory(path)) / "README.md"):
        if card.is_file():
            return card
    raise ValueError(f"there is no card at {path}: `visreg card {path}` writes one for a finished run")


def weights_origin(metadata: RunMetadata) -> Origin:
    """The origin that is stated, else that of what the run started from; of weights without a run nothing is known."""
    return metadata.origin or (origin_of(metadata.initialized_from) if metadata.recipe else Origin(None, None))


def class_count(metadata: RunMetadata) -> int | None:
    """Classes of a network with a classifier, None of one without."""
    names = map(str, metadata.config.get("architectures") or [])
    if not any(name.endswith("ForImageClassification") for name in names):
        return None
    return len(metadata.config.get("id2label") or ()) or 2  # transformers leaves out its default, which is two


def title(metadata: RunMetadata, repo_id: str | None) -> str:
    """The name of the model: of its repository, else of its architecture and data."""
    if repo_id:
        return repo_id.rpartition("/")[2]
    parts = (metadata.name or "vit", metadata.source.get("dataset"))
    name = slug("-".join(str(part).rpartition("/")[2] for part in parts if part))
    return name if name.startswith("visreg") else f"visreg-{name}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
