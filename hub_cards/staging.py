# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What goes to the Hub, gathered in one folder: the model where AutoModel looks for it, and how it came about.

    README.md, *.png                                  the card and its pictures
    config.json, model*.safetensors, *.py             what AutoModel reads, remote code included
    preprocessor_config.json                          what AutoImageProcessor reads
    evaluation/*.json                                 results of `visreg evaluate`
    training/{recipe.yaml, run.json, summary.json, metrics.jsonl}
    pretraining/, checkpoints/step-*/                 on request: the projector; optimizer and position to go on from
    timm/model.safetensors                            on request: the backbone under timm's names

The run is not touched. Local folders are cut from what is written, because they name people and machines.
"""

import json
import os
import shutil
from pathlib import Path

import yaml

from .card import is_edited, licence_there, render_card
from .facts import RunFacts, newest_checkpoint, public, public_recipe, read_object, read_run
from .figures import copy_pictures
from .licence import origin_of_card
from .results import References


def stage(
    run: Path,
    staging: Path,
    repo_id: str,
    *,
    license: str | None = None,
    include_pretraining: bool = False,
    timm: bool = False,
    references: References | None = None,
) -> Path:
    """Fills the empty folder `staging` from a run, or from a checkpoint directory; returns the card's path.

    Raises:
        ValueError: `run` is neither, or its card or its license is not possible.
    """
    given = model_directory(run)
    if given is None:
        _extract_backbone(newest_checkpoint(run), staging)
    else:
        link_files(given, staging)
    facts = read_run(run, staging)
    _add_records(facts, staging)
    if include_pretraining:
        _add_pretraining(run, staging)
    card = staging / "README.md"
    if not is_edited(card):
        licence = license or licence_there(card)
        if card.is_file() and not facts.recipe:  # a checkpoint directory, whose card says where it comes from
            facts.origin = origin_of_card(card)
        text = render_card(facts, copy_pictures(run, staging), repo_id, licence, references)
        card.unlink(missing_ok=True)  # it may be a link into the run
        card.write_text(text, encoding="utf-8", newline="\n")
    elif license not in (None, licence_there(card)):
        raise ValueError(f"the card was edited and says license {licence_there(card)}, not {license}: edit it there.")
    if timm:
        from .timm_format import add_timm  # here: it imports torch, which a push of a finished run does not need

        add_timm(staging)
    return card


def model_directory(run: Path) -> Path | None:
    """The finished model of a run, or `run` itself if it is a checkpoint directory; None for a run under way.

    Raises:
        ValueError: there is nothing to push.
    """
    for directory in (run / "model", run):
        if (directory / "config.json").is_file():
            return directory
    if newest_checkpoint(run) is None:
        raise ValueError(f"{run} has nothing to push: neither model/, nor checkpoints/, nor config.json.")
    return None


def link_files(source: Path, target: Path) -> None:
    """The files of a directory in another one: weights as hard links where that is possible, the rest as copies."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            link_file(path, target / path.name)


def link_file(source: Path, target: Path) -> None:
    """Weights are replaced as a whole, never written into, so a link keeps what they were."""
    if source.suffix in (".safetensors", ".pt"):
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, target)
    else:
        shutil.copyfile(source, target)


def _extract_backbone(checkpoint: Path, staging: Path) -> None:
    """The backbone of a training checkpoint, which holds the projector too."""
    from modeling_visreg import VISRegViTModel
    from modeling_visreg.checkpoint import write_checkpoint

    write_checkpoint(VISRegViTModel.from_pretrained(checkpoint, dtype="auto"), staging)


def _add_records(facts: RunFacts, staging: Path) -> None:
    run, records = facts.run, staging / "training"
    if recipe := read_object(run / "recipe.yaml"):
        records.mkdir(exist_ok=True)
        text = yaml.safe_dump(public_recipe(recipe), sort_keys=False, allow_unicode=True)
        (records / "recipe.yaml").write_text(text, encoding="utf-8")
    for name in ("run.json", "summary.json"):
        if content := read_object(run / name):
            _write_json(records / name, content)
    if (run / "metrics.jsonl").is_file() and records.is_dir():
        shutil.copyfile(run / "metrics.jsonl", records / "metrics.jsonl")
    for name, content in facts.evaluations.items():
        _write_json(staging / "evaluation" / name, content)


def _add_pretraining(run: Path, staging: Path) -> None:
    checkpoint = newest_checkpoint(run)
    if checkpoint is None and not (run / "pretraining").is_dir():
        raise ValueError(f"{run} has no pretraining/ and no checkpoints/ to include.")
    if (run / "pretraining").is_dir():
        link_files(run / "pretraining", staging / "pretraining")
    if checkpoint is not None:
        link_files(checkpoint, staging / "checkpoints" / checkpoint.name)


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(public(content), indent=2) + "\n", encoding="utf-8")
