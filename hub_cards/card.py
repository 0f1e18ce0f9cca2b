# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""Model cards from the files of a run: nothing that was not measured appears, and a missing number is left out."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from .facts import RunFacts, data_words, is_number, read_run
from .figures import Picture, copy_pictures
from .licence import KNOWN, Origin, chosen_licence, is_hub_id, origin_of, origin_of_file
from .markup import Markdown, fenced, plain, slug, template
from .results import References, Result, as_table, beside, data_name, percent, results_of, summary_results


TAGS = ["visreg", "self-supervised-learning", "vision", "vit", "feature-extraction"]
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
    body = template("card.md.jinja", table=as_table, data_name=data_name, percent=percent).render(
        facts=facts,
        title=title(facts, repo_id),
        location=repo_id if repo_id and is_hub_id(repo_id) else "path/to/this/folder",
        config=facts.config,
        results=results,
        headline=[result for result in summary_results(facts) if result.role == "after"],
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
        task_type="image-classification",
        dataset_type=result.dataset if is_hub_id(result.dataset) else slug(result.dataset).lower(),
        dataset_name=plain(result.dataset),
        dataset_config=plain(result.config) if result.config else None,
        dataset_split=plain(result.split) if result.split else None,
        dataset_revision=plain(result.revision) if result.revision else None,
        metric_type=slug(result.metric),
        metric_name=plain(f"{result.metric}, {result.protocol}"),
        metric_value=round(result.value, 6),
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
    name = "-".join(str(part).rpartition("/")[2] for part in parts if part)
    return name if name.startswith("visreg") else f"visreg-{name}"


def architecture(facts: RunFacts) -> str:
    """One line on the model, from its config."""
    config = facts.config
    size = config.get("image_size")
    sides = f"{size} x {size}" if isinstance(size, int) else " x ".join(map(str, size or []))
    parts = [
        ("{} blocks", config.get("num_hidden_layers")),
        ("width {}", config.get("hidden_size")),
        ("{} heads", config.get("num_attention_heads")),
        ("patches of {} pixels", config.get("patch_size")),
        ("native size {} pixels", sides or None),
        ("{} parameters", readable_count(facts.parameters)),
    ]
    return ", ".join(form.format(value) for form, value in parts if value)


def data_rows(facts: RunFacts) -> list[tuple[str, Any]]:
    """The training data as a table."""
    source = facts.source
    names = {
        "dataset": "Data set", "config": "Configuration", "split": "Split", "revision": "Revision",
        "fingerprint": "Fingerprint", "num_examples": "Images", "num_classes": "Classes (labels are not trained on)",
        "subset": "Subset",
    }  # fmt: skip
    if "dataset" in source:
        source = source | {"dataset": data_words(str(source["dataset"]), source.get("revision"))}
    rows = [(label, source[key]) for key, label in names.items() if key in source]
    if source.get("unreadable_files"):
        rows.append(("Unreadable files left out", len(source["unreadable_files"])))
    return [(label, f"{value:,}" if isinstance(value, int) else _inline(value)) for label, value in rows]


def training_rows(facts: RunFacts) -> list[tuple[str, str]]:
    """How the model was trained, from the plan where it says so, else from the recipe."""
    plan, recipe = facts.plan, facts.recipe
    rows = [
        ("Regularizer", recipe.get("regularizer")),
        ("λ (weight of the regularizer)", recipe.get("regularization_weight")),
        ("Slices a step", plan.get("slices") or recipe.get("num_slices")),
        ("Global views", _views(recipe, "global")),
        ("Local views", _views(recipe, "local")),
        ("Images a batch", plan.get("global_batch_size")),
        ("Updates", facts.summary.get("steps") or plan.get("total_steps")),
        ("Epochs", _epochs(facts)),
        ("Peak learning rate (AdamW)", plan.get("learning_rate")),
        ("Weight decay", recipe.get("weight_decay")),
        ("Seed", recipe.get("seed")),
    ]
    return [(label, _inline(value)) for label, value in rows if value is not None]


def cost_rows(facts: RunFacts) -> list[tuple[str, str]]:
    """Hardware, time and images."""
    summary, environment = facts.summary, facts.environment
    rows = [
        ("Device", environment.get("device")),
        ("Processes", facts.plan.get("processes")),
        ("Training time", readable_seconds(summary.get("train_seconds"))),
        ("Images seen", readable_integer(summary.get("images_seen"))),
        ("Images a second", _rounded(summary.get("images_per_second"))),
        ("Final loss", _rounded(summary.get("final_loss"))),
    ]
    versions = [f"{name} {environment[name]}" for name in ("python", "torch", "transformers") if name in environment]
    rows.append(("Software", ", ".join(versions) or None))
    return [(label, _inline(value)) for label, value in rows if value is not None]


def readable_seconds(seconds: Any) -> str | None:
    """62.3 -> "62 s", 4000 -> "1 h 7 min"."""
    if not is_number(seconds):
        return None
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def readable_count(number: int | None) -> str | None:
    """1_812_345 -> "1.8 million"."""
    if number is None:
        return None
    for size, word in ((10**9, "billion"), (10**6, "million")):
        if number >= size:
            return f"{number / size:.1f} {word}"
    return f"{number:,}"


def readable_integer(number: Any) -> str | None:
    return f"{round(number):,}" if is_number(number) else None


def _rounded(number: Any) -> str | None:
    return f"{number:.4g}" if is_number(number) else None


def _views(recipe: dict[str, Any], kind: str) -> str | None:
    number, size, scale = (recipe.get(key) for key in (f"num_{kind}", f"{kind}_size", f"{kind}_scale"))
    if not number:
        return None
    area = f", {scale[0]:g} to {scale[1]:g} of the area" if isinstance(scale, list) and len(scale) == 2 else ""
    return f"{number} of {size} x {size} pixels{area}"


def _epochs(facts: RunFacts) -> str | None:
    steps, epoch = facts.summary.get("steps") or facts.plan.get("total_steps"), facts.plan.get("steps_per_epoch")
    return f"{steps / epoch:g}" if is_number(steps) and is_number(epoch) and epoch else None


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None)
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, Markdown) else str(value)


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
