# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Model cards from the files of a run: nothing that was not measured appears, and a missing number is left out."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from .facts import RunFacts, data_words, is_number, read_run
from .figures import Picture, copy_pictures
from .licence import KNOWN, Origin, chosen_licence, is_hub_id, licence_words, origin_of, origin_of_file
from .markup import fenced, plain, slug, template
from .results import References, Result, as_table, beside, data_name, headline, percent, results_of
from .tables import architecture, cost_rows, data_rows, method, training_rows


TAGS = ["visreg", "self-supervised-learning", "vision", "vit", "feature-extraction"]
# Protocols whose task on the Hub is not the classification of images.
TASKS = {"retrieval": "image-feature-extraction", "segment": "image-segmentation"}
REQUIRED = ("library_name", "pipeline_tag", "license", "tags")
_MARK = re.compile(r"<!-- visreg card ([0-9a-f]{16}) -->\s*\Z")


def write_card(
    run: Path,
    *,
    repo_id: str | None = None,
    license: str | None = None,
    overwrite: bool = False,
    references: References | None = None,
) -> Path:
    """Writes run/model/README.md, and the pictures that it shows beside it, from the files of the run.

    Args:
        run: folder of a run; it needs a `model` folder with config.json, everything else is optional.
        repo_id: where the model will be, for the lines that load it; default: the card's folder.
        license: the Hub's identifier; default: that of the card that is there, else that of the weights the run
            started from, else apache-2.0.
        overwrite: whether to replace a card that somebody edited after it was written.
        references: published figures to show, by name of the evaluation file that they stand beside.

    Returns:
        The card's path.

    Raises:
        ValueError: there is no model, a file of the run cannot be read, the card was edited, or the license is not
            possible.
    """
    run = Path(run)
    model = run / "model"
    if not (model / "config.json").is_file():
        raise ValueError(f"{run} is not a finished run: it has no model/config.json.")
    path = model / "README.md"
    if is_edited(path) and not overwrite:
        raise ValueError(f"{path} was edited by hand: --overwrite replaces it.")
    facts = read_run(run, model)
    pictures = copy_pictures(run, model)
    _write(path, render_card(facts, pictures, repo_id, license or licence_there(path), references))
    return path


def write_converted_card(directory: Path, *, source: str, license: str | None = None) -> Path:
    """Writes the card of a checkpoint directory that was converted from a file.

    Args:
        directory: of the checkpoint.
        source: name of the file; those of the released weights bring their origin and their license.
        license: of other files; without one the card says that it is not known, and a push asks for it.

    Raises:
        ValueError: the license is not known, or not possible for these weights.
    """
    directory = Path(directory)
    facts = read_run(directory, directory)
    facts.origin, facts.name = origin_of_file(source), Path(source).stem
    path = directory / "README.md"
    _write(path, render_card(facts, [], license=license))
    return path


def render_card(
    facts: RunFacts,
    pictures: list[Picture],
    repo_id: str | None = None,
    license: str | None = None,
    references: References | None = None,
) -> str:
    """The text of a card. Raises ValueError if the license is not possible for weights of this origin."""
    origin = facts.origin or origin_of(facts.initialized_from)
    licence = chosen_licence(license, origin)
    results = results_of(facts)
    filters = {"table": as_table, "data_name": data_name, "percent": percent, "licence_words": licence_words}
    body = template("card.md.jinja", **filters).render(
        facts=facts,
        title=title(facts, repo_id),
        location=repo_id if repo_id and is_hub_id(repo_id) else "path/to/this/folder",
        config=facts.config,
        results=results,
        headline=headline(facts),
        method=method(facts),
        references=beside(facts, references or {}),
        pictures={picture.name: picture for picture in pictures},
        origin=origin,
        licence=licence,
        data=data_rows(facts),
        data_in_words=data_words(str(facts.source.get("dataset")), facts.source.get("revision")),
        training=training_rows(facts),
        cost=cost_rows(facts),
        recipe=fenced(yaml.safe_dump(facts.recipe, sort_keys=False, allow_unicode=True), "yaml"),
        architecture=architecture(facts),
    )
    header = metadata(facts, origin, licence, results, title(facts, repo_id)).to_yaml(line_break="\n")
    content = f"---\n{header}\n---\n\n{body.strip()}\n"
    return f"{content}\n<!-- visreg card {_digest(content)} -->\n"


def metadata(facts: RunFacts, origin: Origin, licence: str | None, results: list[Result], name: str) -> ModelCardData:
    """The YAML header, as huggingface_hub's own class makes it."""
    sources = [facts.source.get("dataset")] if facts.source.get("revision") else []
    evaluated = [_eval_result(result) for result in results if result.role == "after"]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="image-feature-extraction",
        license=licence,
        base_model=origin.base_model,
        datasets=[source for source in sources if is_hub_id(str(source))] or None,
        metrics=sorted({slug(result.metric) for result in results}) or None,
        tags=TAGS,
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
    text = Path(path).read_text(encoding="utf-8")
    if not (block := REGEX_YAML_BLOCK.search(text)) or block.start() != 0:
        return ["there is no YAML header between two lines of ---"]
    try:
        data = ModelCard(text).data
    except (ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        return [f"the header is not valid: {plain(error)}"]
    return [*_header_problems(data), *_picture_problems(text, Path(path).parent)]


def _header_problems(data: ModelCardData) -> Iterator[str]:
    header = data.to_dict()
    yield from (f"the header has no {name}" for name in REQUIRED if not header.get(name))
    if data.license and data.license not in KNOWN:
        yield f"license: '{plain(data.license)}' is not one of {', '.join(KNOWN)}"
    for name in ("datasets", "base_model"):
        given = header.get(name) or []
        for value in [given] if isinstance(given, str) else given:
            if not is_hub_id(str(value)):
                yield f"{name}: '{plain(value)}' is no Hub id of the form organisation/name"
    for result in data.eval_results or []:
        if not is_number(result.metric_value):
            yield f"model-index: the {plain(result.metric_type)} is not a finite number"


def _picture_problems(text: str, folder: Path) -> Iterator[str]:
    for picture in re.findall(r"!\[[^\]]*\]\(([^)\s]+)\)", text):
        if "://" not in picture and not (folder / picture).is_file():
            yield f"the picture {plain(picture)} is not beside the card"


def is_edited(path: Path) -> bool:
    """Whether a card that is there differs from what was written, or was never written by this package."""
    if not path.is_file():
        return False
    text = path.read_text(encoding="utf-8")
    mark = _MARK.search(text)
    return mark is None or _digest(text[: mark.start()].rstrip("\n") + "\n") != mark[1]


def title(facts: RunFacts, repo_id: str | None) -> str:
    """The name of the model: of its repository, else of its architecture and data."""
    if repo_id:
        return repo_id.rpartition("/")[2]
    parts = (facts.name or "vit", facts.source.get("dataset"))
    name = slug("-".join(str(part).rpartition("/")[2] for part in parts if part))
    return name if name.startswith("visreg") else f"visreg-{name}"


def licence_there(path: Path) -> str | None:
    """The license that a card says, if it is there and one of the known."""
    if not path.is_file():
        return None
    licence = ModelCard.load(path, ignore_metadata_errors=True).data.license
    return licence if licence in KNOWN else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(path: Path, text: str) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_text(text, encoding="utf-8", newline="\n")
    os.replace(part, path)
