# Copyright 2026 The VISReg package authors. Licensed under the Apache License, Version 2.0.
# SPDX-License-Identifier: Apache-2.0
"""What goes to the Hub, gathered in one folder: the model where AutoModel looks for it, and how it came about.

    README.md, *.png                                  the card and its figures
    config.json, model*.safetensors, *.py             what AutoModel reads, remote code included
    preprocessor_config.json                          what AutoImageProcessor reads
    adapter/                                          of --lora_rank, as PEFT reads it
    evaluation/*.json                                 results of `visreg evaluate`
    training/{recipe.yaml, run.json, summary.json, metrics.jsonl}
    pretraining/, checkpoints/step-*/                 on request: the projector; optimizer and position to go on from
    timm/model.safetensors                            on request: the backbone under timm's names

Of a folder only the files of allowlist.py are taken; the remote code is this package's own. The run is not touched.
Local folders are cut from what is written, because they name people and machines.
"""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import yaml

from visreg_training.run_folder import RunFolder, model_directory, read_object, write_json, write_text

from .allowlist import (
    ADAPTER,
    CHECKPOINT,
    MODEL,
    clean_adapter,
    is_other_family,
    is_regular,
    refuse_linked_records,
    sendable,
    write_code,
)
from .card import read_card, render_card, weights_origin
from .figures import copy_figures, figures_of
from .license import License, chosen_license
from .metadata import RunMetadata, read_metadata


class Staged(NamedTuple):
    """`card`: its path; `left_out`: what lies beside the files that are sent, and stays here."""

    card: Path
    left_out: list[Path]


def stage(
    run: Path,
    staging: Path,
    repo_id: str,
    *,
    license: License | None = None,
    include_pretraining: bool = False,
    timm: bool = False,
) -> Staged:
    """Fills the empty folder `staging` from a run, or from a checkpoint directory.

    Raises:
        ValueError: `run` is neither, its weights cannot be read, or its card or its license is not possible.
    """
    folder = RunFolder(run)
    refuse_linked_records(folder)
    left_out = _add_model(folder, staging)
    write_code(staging)
    left_out += _add_adapter(folder, staging)
    if (include_pretraining or timm) and is_other_family(read_object(staging / "config.json")):
        raise ValueError("--include_pretraining and --timm are for our own ViT; this is a network of another family.")
    metadata = read_metadata(folder, staging)
    _add_records(metadata, staging)
    if include_pretraining:
        left_out += _add_pretraining(folder, staging)
    card = staging / "README.md"
    there = read_card(card)
    if there is None or not there.edited:
        if there and not metadata.recipe:  # a checkpoint directory, whose card says where it comes from
            metadata.origin = there.origin
        asked = license or (there.origin.terms if there else None)
        write_text(card, render_card(metadata, copy_figures(folder, staging), repo_id, asked))
    elif license not in (None, there.origin.terms):
        said, wish = there.origin.license, license.name or license.id
        raise ValueError(f"the card was edited and says license {said}, not {wish}: edit it there.")
    else:
        chosen_license(there.origin.terms, weights_origin(metadata))  # refused where the weights are bound
    if timm:
        from .timm_format import add_timm  # here: it imports torch, which a push of a finished run does not need

        add_timm(staging)
    return Staged(card, left_out)


def snapshot(folder: RunFolder, target: RunFolder) -> bool:
    """What `stage` reads of a run under way, in a folder of its own; False if there is no checkpoint yet.

    The run may go on, and prune the checkpoint, while the copy is pushed.
    """
    checkpoint = folder.newest_checkpoint()
    if checkpoint is None:
        return False
    link_files(checkpoint, target.checkpoints / checkpoint.name, CHECKPOINT)
    for path in (folder.recipe, folder.record, folder.metrics, *figures_of(folder)):
        if is_regular(path):
            shutil.copyfile(path, target.path / path.name)
    return True


def link_files(source: Path, target: Path, names: tuple[str, ...]) -> list[Path]:
    """The files of a directory that are on the list, in another one: weights as hard links where that is possible, the
    rest as copies. Returns what was left out.
    """
    target.mkdir(parents=True, exist_ok=True)
    kept, left_out = sendable(source, names)
    for path in kept:
        link_file(path, target / path.name)
    return left_out


def link_file(source: Path, target: Path) -> None:
    """Weights are replaced, never written into, so a link keeps what they were."""
    if source.suffix in (".safetensors", ".pt"):
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without links
            shutil.copyfile(source, target)
    else:
        shutil.copyfile(source, target)


def _add_model(folder: RunFolder, staging: Path) -> list[Path]:
    """The finished model; of a run under way the backbone of its newest checkpoint, which holds the projector too.

    Returns what lies beside it and was left out.
    """
    from modeling_visreg import VISRegViTModel
    from modeling_visreg.checkpoint import write_checkpoint
    from modeling_visreg.loading import check_weights, load_checkpoint, read_config, read_config_object, stored_tensors

    model, checkpoint = Path(model_directory(folder.path)), folder.newest_checkpoint()
    if (model / "config.json").is_file():
        left_out = link_files(model, staging, MODEL)
        if is_other_family(read_config_object(staging / "config.json")):
            stored_tensors(staging)  # raises ValueError for a file that is cut
        else:
            check_weights(VISRegViTModel, read_config(staging), staging)
        return left_out
    if checkpoint is None:
        raise ValueError(f"{folder} has nothing to push: neither model/, nor checkpoints/, nor config.json.")
    if is_other_family(read_config_object(checkpoint / "config.json")):
        raise ValueError(f"{folder} is not finished: of another family only the finished model is pushed.")
    write_checkpoint(load_checkpoint(VISRegViTModel, checkpoint, dtype=None), staging)
    return []


def _add_adapter(folder: RunFolder, staging: Path) -> list[Path]:
    """The adapters of a finished run that learned nothing else. Returns what lies beside them and was left out."""
    if not (folder.finished() and folder.adapter.is_dir()):
        return []
    target = RunFolder(staging).adapter
    left_out = link_files(folder.adapter, target, ADAPTER)
    clean_adapter(target)
    return left_out


def _add_records(metadata: RunMetadata, staging: Path) -> None:
    folder, records = metadata.folder, staging / "training"
    for name, content in metadata.records.items():
        if name == folder.recipe.name:
            write_text(records / name, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
        else:
            write_json(records / name, content)
    if metadata.records and is_regular(folder.metrics):
        shutil.copyfile(folder.metrics, records / folder.metrics.name)
    for name, content in metadata.evaluations.items():
        write_json(RunFolder(staging).evaluation / name, content)


def _add_pretraining(folder: RunFolder, staging: Path) -> list[Path]:
    checkpoint, target = folder.newest_checkpoint(), RunFolder(staging)
    if checkpoint is None and not folder.pretraining.is_dir():
        raise ValueError(f"{folder} has no pretraining/ and no checkpoints/ to include.")
    left_out = []
    if folder.pretraining.is_dir():
        left_out += link_files(folder.pretraining, target.pretraining, MODEL)
        write_code(target.pretraining)
    if checkpoint is not None:
        left_out += link_files(checkpoint, target.checkpoints / checkpoint.name, CHECKPOINT)
        write_code(target.checkpoints / checkpoint.name)
    return left_out
